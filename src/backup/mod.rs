//! What a backup is: manifests, archives, packages, and their verification.

pub mod manifest;
