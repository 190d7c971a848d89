//! Against output that was recorded: of 3.3.6 from the test bed, of 2.7 as its documentation and source show it.

use super::*;

fn path(text: &str) -> RawPath {
    text.into()
}

#[test]
fn listings_of_both_releases_with_names_that_hold_anything() {
    let dir =
        listed("drwxr-xr-x+  - root supergroup          0 2026-11-24 12:08 /kylin/m/a b".as_bytes()).unwrap();
    assert!(dir.is_dir && dir.has_acl);
    assert_eq!((dir.mode, dir.replication, dir.length, dir.path), (0o755, 0, 0, path("/kylin/m/a b")));
    let file = listed(
        "-rw-r--r--   1 ke domain users          2 2026-11-24 12:08 /m/gr\u{fc}n/\u{e4}*[x]{y}".as_bytes(),
    );
    let file = file.unwrap();
    assert_eq!((file.owner.as_str(), file.group.as_str()), ("ke", "domain users"));
    assert_eq!((file.mode, file.replication, file.length), (0o644, 1, 2));
    assert_eq!(file.path, path("/m/gr\u{fc}n/\u{e4}*[x]{y}"));
    let sticky = listed(b"drwxrwxrwt   - hdfs hadoop          0 2016-01-01 00:00 hdfs://ns/tmp").unwrap();
    assert_eq!((sticky.mode, sticky.path), (0o1777, path("hdfs://ns/tmp")));
    let time_in_name = listed(b"-rw-r--r--   3 a b 1 2026-11-24 12:08  2026-11-24 12:08 x").unwrap();
    assert_eq!(time_in_name.path, path(" 2026-11-24 12:08 x"));
    for other in ["Found 3 items", "", "second half of a name", "-rw-r--r--   1 a b x 2026-11-24 12:08 /p"] {
        assert_eq!(listed(other.as_bytes()), None, "{other}");
    }
}

#[test]
fn what_stat_and_checksum_say() {
    let stated = stated(b"1795522106714\t1048576\troot\tsuper group").unwrap();
    assert_eq!((stated.mtime_ms, stated.block_bytes), (1_795_522_106_714, 1_048_576));
    assert_eq!((stated.owner.as_str(), stated.group.as_str()), ("root", "super group"));
    assert_eq!(super::stated(b"1795522106714\t1\troot"), None);
    let sum = checksummed(b"/m/a b/f\t1\tMD5-of-0MD5-of-512CRC32C\t0000020000").unwrap();
    assert_eq!(sum, (path("/m/a b/f\t1"), "MD5-of-0MD5-of-512CRC32C".into(), "0000020000".into()));
    // A release that has no checksum for the file.
    assert_eq!(checksummed(b"/m/f\tNONE\t").unwrap(), (path("/m/f"), "NONE".into(), String::new()));
    assert_eq!(checksummed(b"no checksum at all"), None);
}

#[test]
fn absence_is_only_what_is_said_of_this_path() {
    let said = "ls: `/kylin/none': No such file or directory\n";
    assert!(says_absent(said, &path("/kylin/none")));
    assert!(!says_absent(said, &path("/kylin")));
    let down = "ls: Call From vm/127.0.0.1 to localhost:1 failed on connection exception: java.net.ConnectException: Connection refused";
    assert!(!says_absent(down, &path("/kylin/none")));
    let log = "2026-11-24 12:09:07,970 WARN util.NativeCodeLoader: Unable\nmv: Permission denied: user=ke\n";
    assert_eq!(complaint(log), "mv: Permission denied: user=ke");
    // 2.7 writes the year with two digits.
    assert_eq!(complaint("26/11/24 12:09:07 WARN util.X: y\nls: refused\n"), "ls: refused");
}

#[test]
fn quotas_and_space() {
    let line = b"        none             inf            none             inf            6            4            3000004 /kylin";
    let counted = super::counted(line).unwrap();
    assert_eq!((counted.names_left, counted.bytes_left, counted.dirs, counted.files), (None, None, 6, 4));
    assert_eq!((counted.bytes, counted.path), (3_000_004, path("/kylin")));
    let line = b"          10               3         1048576          -20000            6            4            3000004 /a b";
    let counted = super::counted(line).unwrap();
    assert_eq!(
        (counted.names_left, counted.bytes_left, counted.path),
        (Some(3), Some(-20_000), path("/a b"))
    );
    let root = b"9223372036854775807 9223372036854775794            none             inf            9            4            3000004 /";
    assert_eq!(super::counted(root).unwrap().names_left, None);
    let df: Vec<Vec<u8>> = [
        "Filesystem                      Size     Used    Available  Use%",
        "hdfs://127.0.0.1:12740  270553174016  3048063  38430908416    0%",
    ]
    .map(|line| line.as_bytes().to_vec())
    .to_vec();
    assert_eq!(free_bytes(&df), Some(38_430_908_416));
    assert_eq!(free_bytes(&df[..1]), None);
}

#[test]
fn jobs_and_how_they_get_on() {
    let listing = "Total number of applications (application-types: [], states: [] and tags: [kytx-aa]):1\n                Application-Id\t    Application-Name\t    Application-Type\t      User\t     Queue\t             State\t       Final-State\t       Progress\t                       Tracking-URL\napplication_1795522068027_0001\tdistcp: kytx-aa-copy-e1\t           MAPREDUCE\t      root\t   default\t          FINISHED\t         SUCCEEDED\t           100%\thttp://localhost:19888/x\n";
    let jobs = applications(listing).unwrap();
    assert_eq!((jobs.len(), jobs[0].name.as_str()), (1, "distcp: kytx-aa-copy-e1"));
    assert!(jobs[0].has_ended() && jobs[0].final_state == "SUCCEEDED" && jobs[0].progress == "100%");
    let running = listing.replace("FINISHED", "RUNNING ");
    assert!(!applications(&running).unwrap()[0].has_ended());
    // No heading, no answer: "no job" is something else.
    assert_eq!(applications("Exception in thread main\n"), None);
    let line = "2026-11-24 12:09:02,553 INFO mapreduce.Job:  map 33% reduce 0%";
    assert_eq!((map_percent(line), map_percent("INFO tools.DistCp: map of it")), (Some(33), None));
}

#[test]
fn checks_of_the_file_system() {
    let healthy =
        "Status: HEALTHY\n Number of data-nodes:\t1\n\n\nThe filesystem under path '/kylin' is HEALTHY\n";
    assert_eq!(file_system_check(healthy), Some(Ok(())));
    let corrupt = "\n/kylin/copy/big: CORRUPT blockpool BP-1 block blk_1073741825\n\n/kylin/copy/big: CORRUPT 1 blocks of total size 1048576 B.\nStatus: CORRUPT\nThe filesystem under path '/kylin' is CORRUPT\n";
    let named = file_system_check(corrupt).unwrap().unwrap_err();
    assert!(named.iter().all(|line| line.starts_with("/kylin/copy/big")) && !named.is_empty(), "{named:?}");
    assert_eq!(file_system_check("FSCK started by root\nException\n"), None);
    let new = "\n/kylin/m/a b/open 100 bytes, replicated: replication=1, 1 block(s), OPENFORWRITE: \nStatus: HEALTHY\n";
    let old = "...../kylin/m/a b/open 100 bytes, 1 block(s), OPENFORWRITE: Status: HEALTHY\n";
    for said in [new, old] {
        assert_eq!(open_files(said), ["/kylin/m/a b/open"]);
    }
    assert!(open_files(healthy).is_empty());
}

#[test]
fn snapshottable_directories_and_spellings() {
    let line = "drwxr-xr-x 0 root super group 0 2026-11-24 12:08 0 65536 /kylin/kylin_metadata\n";
    assert_eq!(snapshottable(line), [path("/kylin/kylin_metadata")]);
    assert!(snapshottable("\n").is_empty());
    assert_eq!(literal(&path("/a*[b]{c}")), path("/a\\*\\[b\\]\\{c\\}"));
    for (given, plain) in [("hdfs://ns/k/m", "/k/m"), ("/k/m", "/k/m"), ("hdfs://ns", "/")] {
        assert_eq!(without_authority(&path(given)), path(plain));
    }
}
