//! A machine with a home of real parts: what an operator has, and a package of the next release.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use super::bed::{Bed, PASSWORD};
use super::store::{Entries, Kind, Store, seed};
use crate::support::{Answer, Ran, kytx_binary, wait_until};

/// The product that a home has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Product {
    /// Kyligence Enterprise 3: profiles, and our service in a real Tomcat.
    Ke,
    /// Kylin 3: no profiles, bare answers, our service.
    Kylin,
    /// Kylin 3 with its own server classes.
    KylinServer,
}

/// What the site is made of.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub product: Product,
    pub store: Kind,
    /// Entries of metadata beside the usual ones.
    pub entries: usize,
    /// The jars are in the home, as they are in the real one; else the home finds them in the bed.
    pub jars_inside: bool,
}

impl Plan {
    pub fn new(product: Product, store: Kind) -> Self {
        Self { product, store, entries: 0, jars_inside: false }
    }
}

/// A machine. It is gone with all its processes after the test.
pub struct Site<'a> {
    pub bed: &'a Bed,
    pub plan: Plan,
    pub root: PathBuf,
    pub home: PathBuf,
    pub package: PathBuf,
    pub store: Store,
    pub port: u16,
    /// How long kytx waits for the service, in seconds.
    pub start_timeout_s: String,
    _dir: tempfile::TempDir,
}

const REAL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/testbed/product/real");

impl<'a> Site<'a> {
    /// Builds it. Nothing is in the store yet, and nothing runs.
    pub fn new(bed: &'a Bed, plan: Plan) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = tempfile::Builder::new().prefix("kytx-real-").tempdir().unwrap();
        let root = fs::canonicalize(dir.path()).unwrap();
        let store = Store::new(bed, plan.store, &root, &format!("kytx_{}_{number}", std::process::id()));
        fs::create_dir_all(store.working()).unwrap();
        fs::create_dir(root.join("opt")).unwrap();
        let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let home = root.join("opt/kylin");
        let package = root.join("package.tar.gz");
        let start_timeout_s = "300".to_owned();
        let site = Self { bed, plan, root, home, package, store, port, start_timeout_s, _dir: dir };
        site.build_tree(&site.home, "3.1.2");
        site.configure();
        let (name, version) = site.release("3.1.3");
        site.build_tree(&site.root.join("new").join(&name), &version);
        let packed = Command::new("tar")
            .args(["--owner=kylin", "--group=hadoop", "--use-compress-program=gzip -1", "-cf"])
            .arg(&site.package)
            .args(["-C", site.root.join("new").to_str().unwrap(), &name])
            .status();
        assert!(packed.unwrap().success());
        fs::remove_dir_all(site.root.join("new")).unwrap();
        let java = site.root.join("jdk/bin/java");
        write(&java, JAVA_8);
        fs::set_permissions(java, fs::Permissions::from_mode(0o755)).unwrap();
        site
    }

    /// The name of a package's directory, and the version in full.
    fn release(&self, version: &str) -> (String, String) {
        if self.plan.product == Product::Ke {
            let version = format!("{version}.2028-GA");
            (format!("Kyligence-Enterprise-{version}"), version)
        } else {
            (format!("apache-kylin-{version}-bin"), version.to_owned())
        }
    }

    /// A release as it is shipped.
    fn build_tree(&self, tree: &Path, version: &str) {
        let (_, version) = self.release(version.split(".2028").next().unwrap());
        copy_tree(&Path::new(REAL).join("home"), tree);
        copy_tree(&self.bed.jars.join("tomcat"), &tree.join("tomcat"));
        write(&tree.join("bin/bed"), &format!("{}\n", self.bed.dir.join("bed").display()));
        let is_ke = self.plan.product == Product::Ke;
        let words = if is_ke { "Kyligence Enterprise" } else { "Apache kylin" };
        write(&tree.join("VERSION"), &format!("{words} {version}\n"));
        let commit = blake3::hash(version.as_bytes()).to_hex();
        write(&tree.join("commit_SHA1"), &format!("{}{}\n", &commit[..40], if is_ke { "@KAP" } else { "" }));
        write(&tree.join("LICENSE"), "====\nthe licence of the package\n====\n");
        write(&tree.join("conf/setenv.sh"), "export KYLIN_JVM_SETTINGS=\"-Xmx400m\"\n");
        write(&tree.join("tomcat/conf/server.xml"), &server_xml(7070));
        let properties = format!(
            "# shipped with {version}\nkylin.metadata.url=kylin_metadata@hbase\n\
             kylin.env.hdfs-working-dir=/kylin\nkylin.security.profile=testing\nkylin.server.mode=all\n"
        );
        if is_ke {
            for profile in ["profile_prod", "profile_min"] {
                write(&tree.join("conf").join(profile).join("kylin.properties"), &properties);
            }
            symlink("profile_prod", tree.join("conf/profile")).unwrap();
            symlink("profile/kylin.properties", tree.join("conf/kylin.properties")).unwrap();
        } else {
            write(&tree.join("conf/kylin.properties"), &properties);
        }
        self.add_web_application(tree);
        if self.plan.jars_inside {
            let jars = if self.plan.product == Product::KylinServer { "server" } else { "tool" };
            copy_tree(&self.bed.jars.join(jars), &tree.join("lib"));
            copy_tree(&self.bed.jars.join("spark"), &tree.join("spark/jars"));
            write(&tree.join("spark/RELEASE"), "Spark 2.4.5 built for Hadoop 2.6.5\n");
        }
    }

    fn add_web_application(&self, tree: &Path) {
        let web = match self.plan.product {
            Product::KylinServer => {
                write(&tree.join("conf/real-server"), "");
                "kylin"
            }
            Product::Ke | Product::Kylin => "standin",
        };
        let made = Command::new(self.bed.java.join("bin/jar"))
            .arg("cf")
            .arg(tree.join("tomcat/webapps/kylin.war"))
            .args(["-C", &format!("{REAL}/web/{web}"), "."])
            .status();
        assert!(made.unwrap().success());
        // The names of all jars, none of which has anything that Tomcat would look for in it.
        let path = tree.join("tomcat/conf/catalina.properties");
        let mut text = fs::read_to_string(&path).unwrap();
        text.push_str(
            "\ntomcat.util.scan.DefaultJarScanner.jarsToSkip=*.jar\n\
             org.apache.catalina.startup.ContextConfig.jarsToSkip=*.jar\n\
             org.apache.catalina.startup.TldConfig.jarsToSkip=*.jar\n",
        );
        fs::write(path, text).unwrap();
    }

    /// What an operator does to a home.
    fn configure(&self) {
        let zookeeper = if self.plan.product == Product::KylinServer {
            format!("kylin.env.zookeeper-connect-string=127.0.0.1:{}\n", self.bed.zookeeper)
        } else {
            String::new()
        };
        let text = format!(
            "# ours\nkylin.metadata.url={}\n{}=file://{}\nkylin.security.profile=testing\n\
             kylin.server.mode=all\n{zookeeper}",
            self.store.url(self.bed),
            // The name that the property had long ago, and that Kylin still knows.
            if self.plan.product == Product::Kylin {
                "kylin.hdfs.working.dir"
            } else {
                "kylin.env.hdfs-working-dir"
            },
            self.store.working().parent().unwrap().display()
        );
        // Through the links, as an editor does.
        fs::write(self.home.join("conf/kylin.properties"), text).unwrap();
        write(&self.home.join("conf/ours.keytab"), "the operator's own");
        fs::write(self.home.join("tomcat/conf/server.xml"), server_xml(self.port)).unwrap();
    }

    /// Fills the store with the product's own tool.
    pub fn fill(&self) {
        let tree = self.root.join("seed");
        seed(&tree, self.plan.entries);
        self.script("metastore.sh", &["restore", tree.to_str().unwrap()]).expect_code(0);
        fs::remove_dir_all(tree).unwrap();
        // Cube data.
        write(&self.store.working().join("parquet/sales/0.parquet"), "segment");
    }

    /// One of the home's scripts, as an operator calls it.
    #[must_use = "assert on the code, or on the output"]
    pub fn script(&self, script: &str, args: &[&str]) -> Ran {
        let mut command = Command::new(self.home.join("bin").join(script));
        command.args(args);
        self.isolate(&mut command);
        command.env("KYLIN_HOME", &self.home);
        Ran::of(&mut command)
    }

    /// A property of the home as Kylin itself reads it.
    #[track_caller]
    pub fn property(&self, key: &str) -> String {
        self.script("get-properties.sh", &[key]).expect_code(0).stdout.trim().to_owned()
    }

    /// kytx with these words.
    #[must_use = "assert on the code, or on the output"]
    pub fn kytx(&self, words: &[&str]) -> Ran {
        let mut command = Command::new(kytx_binary());
        command.args(words);
        self.isolate(&mut command);
        Ran::of(&mut command)
    }

    /// A command of kytx on the home.
    #[must_use = "assert on the code, or on the output"]
    pub fn run(&self, command: &str, more: &[&str]) -> Ran {
        self.kytx(&[&[command, self.home.to_str().unwrap()], more].concat())
    }

    /// The words of `begin`.
    pub fn begin_words(&self) -> Vec<&str> {
        vec![
            "begin",
            self.home.to_str().unwrap(),
            "--package",
            self.package.to_str().unwrap(),
            "--silent",
            "--archive",
            "none",
            "--start-timeout",
            &self.start_timeout_s,
            "--user",
            "ADMIN",
        ]
    }

    /// The same where the operator has looked after the jobs.
    pub fn begin_words_with_word(&self) -> Vec<&str> {
        let mut words = self.begin_words();
        words.truncate(words.len() - 2);
        words.push("--jobs-finished");
        words
    }

    fn isolate(&self, command: &mut Command) {
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", &self.root)
            .env("JAVA_HOME", self.root.join("jdk"))
            .env("KYTX_PASSWORD", "KYLIN")
            .envs([("TZ", "UTC"), ("LANG", "C.UTF-8"), ("LC_ALL", "C.UTF-8")])
            .current_dir(&self.root)
            .stdin(Stdio::null());
    }

    /// Starts the service as an operator does, and waits until it answers.
    #[track_caller]
    pub fn start(&self) {
        self.script("kylin.sh", &["start"]).expect_code(0);
        wait_until("the service is ready", || self.is_ready());
    }

    /// Whether the service answers.
    pub fn is_ready(&self) -> bool {
        self.ask("GET", "/kylin/api/admin/version", "").is_some_and(|answer| answer.status == 200)
    }

    /// What the service says its version is.
    pub fn version(&self) -> String {
        let answer = self.ask("GET", "/kylin/api/admin/version", "").expect("the service answers");
        let value: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        value["kylin.version"].as_str().unwrap().to_owned()
    }

    /// The names of the projects that the service has.
    #[track_caller]
    pub fn projects(&self) -> Vec<String> {
        let answer = self.ask("GET", "/kylin/api/projects", "").expect("the service answers");
        let value: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        let list = value.as_array().or_else(|| value["data"]["projects"].as_array());
        let names = list.unwrap_or_else(|| panic!("{value}")).iter();
        let mut names: Vec<_> = names.map(|project| project["name"].as_str().unwrap().to_owned()).collect();
        names.sort();
        names
    }

    /// Makes a project over REST.
    #[track_caller]
    pub fn make_project(&self, name: &str) {
        let description = format!("{{\"name\":\"{name}\"}}");
        let body = serde_json::json!({ "projectDescData": description }).to_string();
        let answer = self.ask("POST", "/kylin/api/projects", &body).expect("the service answers");
        assert_eq!(answer.status, 200, "{}", answer.body);
    }

    /// Asks the service as its administrator.
    pub fn ask(&self, method: &str, path: &str, body: &str) -> Option<Answer> {
        let accept = if self.plan.product == Product::Ke {
            "application/vnd.apache.kylin-v2+json"
        } else {
            "application/json"
        };
        let mut connection = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        let length = body.len();
        write!(
            connection,
            "{method} {path} HTTP/1.0\r\nHost: localhost\r\nAuthorization: Basic QURNSU46S1lMSU4=\r\nAccept: {accept}\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .ok()?;
        let mut text = String::new();
        connection.read_to_string(&mut text).ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some(Answer { status, head: head.to_owned(), body: body.to_owned() })
    }

    /// Switches nastiness on; `""` switches all off.
    pub fn knobs(&self, text: &str) {
        fs::write(self.home.parent().unwrap().join("knobs"), text).unwrap();
    }

    /// What a knob that works once has done, and forgets it.
    pub fn struck(&self) -> Option<String> {
        let path = self.home.parent().unwrap().join("knobs.struck");
        let text = fs::read_to_string(&path).ok()?;
        fs::remove_file(path).unwrap();
        Some(text.trim().to_owned())
    }

    /// Holds against every file of kytx's own that the password of the database, which the tool says again and again, is
    /// in none of them but the configuration that is carried over, which only its owner may read. The spare tree is a
    /// home.
    #[track_caller]
    pub fn assert_no_password_is_kept(&self) {
        let mut open = vec![self.home.with_file_name(".kytx")];
        let mut looked = 0;
        while let Some(dir) = open.pop() {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    open.extend((!path.ends_with("spare")).then_some(path));
                    continue;
                }
                looked += 1;
                let content = fs::read(&path).unwrap();
                let holds = content.windows(PASSWORD.len()).any(|window| window == PASSWORD.as_bytes());
                let is_content = path.to_str().unwrap().contains("/plan/content-");
                let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
                assert!(!holds || is_content && mode == 0o600, "{} holds the password", path.display());
            }
        }
        assert!(looked > 0, "kytx has files of its own");
    }

    /// What the store holds.
    pub fn entries(&self) -> Entries {
        self.store.entries(self.bed)
    }
}

impl Drop for Site<'_> {
    fn drop(&mut self) {
        // A panic in here would abort the run and hide the failure that led to it.
        let _ = kytx::testbed::end_processes_below(&self.root);
        if !std::thread::panicking() {
            self.store.drop_database(self.bed);
        }
    }
}

/// For kytx, which must not take a later Java for fit; the scripts run the bed's own.
const JAVA_8: &str = "#!/bin/sh\necho 'openjdk version \"1.8.0_402\"' >&2\n\
    echo 'OpenJDK 64-Bit Server VM (build 25.402-b06, mixed mode)' >&2\necho '    sun.arch.data.model = 64' >&2\n";

fn server_xml(port: u16) -> String {
    format!(
        r#"<?xml version='1.0' encoding='utf-8'?>
<Server port="-1" shutdown="SHUTDOWN">
  <Service name="Catalina">
    <Connector port="{port}" protocol="HTTP/1.1" address="127.0.0.1" connectionTimeout="20000"/>
    <Engine name="Catalina" defaultHost="localhost">
      <Host name="localhost" appBase="webapps" unpackWARs="true" autoDeploy="false"/>
    </Engine>
  </Service>
</Server>
"#
    )
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
