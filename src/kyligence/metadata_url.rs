//! Where metadata and cube data are: what `kylin.metadata.url` and `kylin.env.hdfs-working-dir` say.

use std::collections::BTreeMap;
use std::fmt;

use super::home::Layout;
use super::secrets::mask_value;

/// A parsed `kylin.metadata.url`: `<identifier>@<type>[,key=value...]`. `Display` and `Debug` mask secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct MetadataUrl {
    /// The store's name, which also names the instance's folder of cube data.
    pub identifier: String,
    /// What kind of store it is.
    pub kind: StoreKind,
    /// The parameters behind the type.
    pub parameters: BTreeMap<String, String>,
}

/// A kind of metadata store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreKind {
    /// A table of `HBase`.
    Hbase,
    /// Tables of a relational database.
    Jdbc,
    /// A directory of the cluster's file system.
    Hdfs,
    /// A local directory, used by tests of the product.
    Directory,
    /// Anything else, by its name.
    Other(String),
}

impl MetadataUrl {
    /// Reads the value: split at commas, the first part at its last `@`; an empty identifier is `kylin_metadata`.
    pub fn parse(value: &str) -> Self {
        let mut parts = value.trim().split(',');
        let first = parts.next().unwrap_or_default().trim();
        let (identifier, kind) = match first.rsplit_once('@') {
            Some((identifier, kind)) => (identifier, StoreKind::named(kind)),
            None if first.contains('/') => (first, StoreKind::Directory),
            None => (first, StoreKind::Other(String::new())),
        };
        let identifier = if identifier.is_empty() { "kylin_metadata" } else { identifier };
        let parameters = parts
            .map(|part| part.split_once('=').unwrap_or((part, "")))
            .map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()))
            .collect();
        Self { identifier: identifier.to_owned(), kind, parameters }
    }

    /// The hosts and ports of a database, as its URL names them: `jdbc:mysql://a:3306,b:3306/db?...`. None where it
    /// names none in this form.
    pub fn database_hosts(&self) -> Vec<(String, u16)> {
        let url = self.parameters.get("url").map(String::as_str).unwrap_or_default();
        let Some((scheme, tail)) = url.split_once("://") else { return Vec::new() };
        let default_port = match scheme.strip_prefix("jdbc:").unwrap_or_default().split(':').next() {
            Some("mysql" | "mariadb") => 3306,
            Some("postgresql") => 5432,
            _ => return Vec::new(),
        };
        let hosts = tail.split(['/', '?', ';']).next().unwrap_or_default();
        // A password before the hosts may hold anything but the sign that ends it.
        let hosts = hosts.rsplit_once('@').map_or(hosts, |(_, hosts)| hosts);
        let one = |host: &str| match host.rsplit_once(':') {
            Some((name, port)) => Some((name.to_owned(), port.parse().ok()?)),
            None => Some((host.to_owned(), default_port)),
        };
        let plain = |host: &&str| {
            !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_:".contains(&b))
        };
        hosts.split(',').filter(plain).filter_map(one).collect()
    }
}

impl StoreKind {
    fn named(name: &str) -> Self {
        match name.trim().to_ascii_lowercase().as_str() {
            "hbase" => Self::Hbase,
            "jdbc" => Self::Jdbc,
            "hdfs" => Self::Hdfs,
            other => Self::Other(other.to_owned()),
        }
    }
}

impl fmt::Display for MetadataUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.identifier)?;
        match &self.kind {
            StoreKind::Hbase => f.write_str("@hbase")?,
            StoreKind::Jdbc => f.write_str("@jdbc")?,
            StoreKind::Hdfs => f.write_str("@hdfs")?,
            StoreKind::Other(name) if !name.is_empty() => write!(f, "@{name}")?,
            StoreKind::Other(_) | StoreKind::Directory => {}
        }
        self.parameters.iter().try_for_each(|(key, value)| write!(f, ",{key}={}", mask_value(key, value)))
    }
}

impl fmt::Debug for MetadataUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MetadataUrl({self})")
    }
}

/// Where cube data are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkingDir {
    /// The directory that instances may share, without a final slash.
    pub shared: String,
    /// This instance's own folder in it. `None` for a metadata store that is a local directory, whose path is no
    /// folder's name.
    pub instance: Option<String>,
}

/// A working directory that the service itself would refuse, or that cannot be known from the files alone.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadWorkingDir {
    /// Neither absolute nor a URI.
    #[error("`kylin.env.hdfs-working-dir` is `{value}`, which is neither an absolute path nor a URI")]
    Relative {
        /// The value.
        value: String,
    },
    /// It is set through a variable of the service's environment.
    #[error(
        "`kylin.env.hdfs-working-dir` or the metadata identifier is `{value}`: kytx does not expand variables"
    )]
    Variable {
        /// The value.
        value: String,
    },
}

impl WorkingDir {
    /// The working directory of an instance: `<dir>/<identifier>`, with `:` (and `/`, where the server is Spring
    /// Boot) of the identifier replaced by `-`.
    pub fn new(dir: &str, metadata: &MetadataUrl, layout: Layout) -> Result<Self, BadWorkingDir> {
        if let Some(value) = [dir, &metadata.identifier].into_iter().find(|value| value.contains("${")) {
            return Err(BadWorkingDir::Variable { value: value.to_owned() });
        }
        let has_scheme = dir.split_once(":/").is_some_and(|(scheme, _)| {
            !scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
        });
        if !dir.starts_with('/') && !has_scheme {
            return Err(BadWorkingDir::Relative { value: dir.to_owned() });
        }
        let shared = dir.trim_end_matches('/').to_owned();
        let folder = match layout {
            Layout::Tomcat => metadata.identifier.replace(':', "-"),
            Layout::Server => metadata.identifier.replace([':', '/'], "-"),
        };
        let instance = (metadata.kind != StoreKind::Directory).then(|| format!("{shared}/{folder}"));
        Ok(Self { shared, instance })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_of_a_database_are_read_where_its_url_names_them() {
        let hosts = |url: &str| MetadataUrl::parse(&format!("m@jdbc,url={url},username=u")).database_hosts();
        let one = |host: &str, port| vec![(host.to_owned(), port)];
        assert_eq!(hosts("jdbc:mysql://h:3307/kylin"), one("h", 3307));
        assert_eq!(hosts("jdbc:mysql://h/kylin?useSSL=false"), one("h", 3306));
        assert_eq!(hosts("jdbc:postgresql://pg.example:5433/kylin"), one("pg.example", 5433));
        assert_eq!(hosts("jdbc:mysql://u:p@ss@h:1/kylin"), one("h", 1));
        for none in
            ["jdbc:mysql:///kylin", "jdbc:oracle:thin:@h:1521:x", "jdbc:h2:/x", "", "jdbc:mysql://(host=h)/x"]
        {
            assert_eq!(hosts(none), [], "{none}");
        }
    }

    #[test]
    fn every_form_of_the_metadata_url_is_read() {
        let cases = [
            ("kylin_metadata@hbase", "kylin_metadata", StoreKind::Hbase),
            ("NS:table@hbase", "NS:table", StoreKind::Hbase),
            ("@jdbc,url=x", "kylin_metadata", StoreKind::Jdbc),
            ("a@b@jdbc", "a@b", StoreKind::Jdbc),
            ("id@hdfs,path=hdfs://ns/x", "id", StoreKind::Hdfs),
            ("/var/metadata", "/var/metadata", StoreKind::Directory),
            ("id@ifile", "id", StoreKind::Other("ifile".into())),
        ];
        for (value, identifier, kind) in cases {
            let url = MetadataUrl::parse(value);
            assert_eq!((url.identifier.as_str(), &url.kind), (identifier, &kind), "{value}");
        }
    }

    #[test]
    fn the_password_is_read_and_never_shown() {
        let url = MetadataUrl::parse("m@jdbc,url=jdbc:mysql://u:pw@h:3306/db?a=b,username=u,password=pw");
        assert_eq!(url.parameters["password"], "pw");
        assert_eq!(url.parameters["url"], "jdbc:mysql://u:pw@h:3306/db?a=b");
        for shown in [url.to_string(), format!("{url:?}")] {
            assert!(!shown.contains("pw"), "{shown}");
        }
    }

    #[test]
    fn the_instance_has_its_own_folder() {
        let url = MetadataUrl::parse("NS:a/b@hbase");
        let dir = |dir: &str, layout| WorkingDir::new(dir, &url, layout).map(|d| d.instance.unwrap());
        assert_eq!(dir("/kylin/", Layout::Tomcat).unwrap(), "/kylin/NS-a/b");
        assert_eq!(dir("hdfs://ns/kylin", Layout::Server).unwrap(), "hdfs://ns/kylin/NS-a-b");
        assert_eq!(dir("/", Layout::Server).unwrap(), "/NS-a-b");
        assert_eq!(dir("maprfs:///k", Layout::Server).unwrap(), "maprfs:///k/NS-a-b");
        assert!(matches!(dir("kylin", Layout::Tomcat), Err(BadWorkingDir::Relative { .. })));
        assert!(matches!(dir("/x/${USER}", Layout::Tomcat), Err(BadWorkingDir::Variable { .. })));
        let local = WorkingDir::new("/kylin", &MetadataUrl::parse("/var/m"), Layout::Tomcat).unwrap();
        assert_eq!(local.instance, None);
    }
}
