//! A kubeconfig for the stand-in, for kube's client. `kubectl` is of no use here: it sends no token over plain HTTP.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Writes a kubeconfig that only its owner can read: it holds the token.
pub(crate) fn write(path: &Path, url: &str, user: &str, token: &str) -> io::Result<()> {
    // Made anew: an older file keeps its permissions.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file: File = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text(url, user, token).as_bytes())
}

fn text(url: &str, user: &str, token: &str) -> String {
    format!(
        "apiVersion: v1
kind: Config
clusters:
- name: dayfly-dev
  cluster:
    server: {url}
users:
- name: {user}
  user:
    token: {token}
contexts:
- name: dayfly-dev
  context:
    cluster: dayfly-dev
    user: {user}
current-context: dayfly-dev
"
    )
}
