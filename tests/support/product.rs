//! What of a machine is the product's own business.

#![allow(dead_code, reason = "each test uses a part of it")]

/// What the product itself writes into a home whenever one of its scripts runs. Not the lock of its start, which must be
/// gone when the start is over.
pub const WRITTEN: [&str; 9] = [
    "logs",
    "pid",
    "bin/cached-*.sh",
    "logrotate",
    "tomcat/webapps",
    "tomcat/logs",
    "conf/fairscheduler.xml",
    "meta_backups",
    "ext",
];
