//! What an API server needs to forward to aggregated APIs, and to know people by client certificates.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use anyhow::{Context, Result};
use rcgen::{CertificateParams, DnType, Issuer, KeyPair};
use serde_json::json;

use super::{ControlPlane, write};

/// The common name that the API server's front-proxy certificate has, which alone is allowed.
const FRONT_PROXY: &str = "front-proxy-client";

/// Two certificate authorities: of the API server's front proxy, and of people.
pub(super) struct Authorities {
    front_proxy: Issuer<'static, KeyPair>,
    people: Issuer<'static, KeyPair>,
}

impl Authorities {
    /// Makes them, and writes what the API server reads.
    pub(super) fn make(dir: &Path) -> Result<Self> {
        let front_proxy = authority(dir, "front-proxy-ca", "dayfly test front proxy")?;
        let people = authority(dir, "people-ca", "dayfly test people")?;
        certify(dir, "front-proxy", &front_proxy, FRONT_PROXY, "")?;
        Ok(Self { front_proxy, people })
    }

    /// The API server's flags.
    pub(super) fn flags(dir: &Path) -> Vec<String> {
        let file = |name: &str| dir.join(name).display().to_string();
        vec![
            format!("--client-ca-file={}", file("people-ca.crt")),
            format!("--proxy-client-cert-file={}", file("front-proxy.crt")),
            format!("--proxy-client-key-file={}", file("front-proxy.key")),
            format!("--requestheader-client-ca-file={}", file("front-proxy-ca.crt")),
            format!("--requestheader-allowed-names={FRONT_PROXY}"),
            "--requestheader-username-headers=X-Remote-User".to_owned(),
            "--requestheader-uid-headers=X-Remote-Uid".to_owned(),
            "--requestheader-group-headers=X-Remote-Group".to_owned(),
            "--requestheader-extra-headers-prefix=X-Remote-Extra-".to_owned(),
        ]
    }
}

impl ControlPlane {
    /// Writes a new kubeconfig of a person of this name, in this group, known by a client certificate.
    ///
    /// # Errors
    /// Without [`Options::aggregation`](super::Options::aggregation).
    pub fn kubeconfig_of(&self, user: &str, group: &str) -> Result<PathBuf> {
        let (certificate, key) = self.certificate_of_person(user, group)?;
        let number = self.kubeconfigs.fetch_add(1, Ordering::Relaxed);
        let cluster = json!({ "server": self.url(), "certificate-authority": self.dir().join("ca.crt") });
        let kubeconfig = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "test", "cluster": cluster }],
            "users": [{ "name": "test", "user": { "client-certificate": certificate, "client-key": key } }],
            "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "test" } }],
            "current-context": "test",
        });
        write(self.dir(), &format!("kubeconfig-{number}"), &kubeconfig.to_string())
    }

    /// A client certificate of a person, and its key: files.
    pub fn certificate_of_person(&self, user: &str, group: &str) -> Result<(PathBuf, PathBuf)> {
        let number = self.kubeconfigs.fetch_add(1, Ordering::Relaxed);
        certify(self.dir(), &format!("person-{number}"), &self.authorities()?.people, user, group)
    }

    /// A client certificate by the front proxy's own authority, of another name than the API server's.
    pub fn certificate_beside_front_proxy(&self, name: &str) -> Result<(PathBuf, PathBuf)> {
        certify(self.dir(), &format!("beside-{name}"), &self.authorities()?.front_proxy, name, "")
    }

    /// The API server's own front-proxy certificate, and its key: files.
    pub fn front_proxy_certificate(&self) -> (PathBuf, PathBuf) {
        (self.dir().join("front-proxy.crt"), self.dir().join("front-proxy.key"))
    }

    fn authorities(&self) -> Result<&Authorities> {
        self.authorities.as_ref().context("start with Options::aggregation")
    }
}

fn authority(dir: &Path, file: &str, name: &str) -> Result<Issuer<'static, KeyPair>> {
    let mut params = CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::generate()?;
    write(dir, &format!("{file}.crt"), &params.self_signed(&key)?.pem())?;
    Ok(Issuer::new(params, key))
}

fn certify(
    dir: &Path,
    file: &str,
    authority: &Issuer<'_, KeyPair>,
    name: &str,
    group: &str,
) -> Result<(PathBuf, PathBuf)> {
    let mut params = CertificateParams::default();
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    params.distinguished_name.push(DnType::CommonName, name);
    if !group.is_empty() {
        params.distinguished_name.push(DnType::OrganizationName, group);
    }
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, authority)?;
    Ok((
        write(dir, &format!("{file}.crt"), &certificate.pem())?,
        write(dir, &format!("{file}.key"), &key.serialize_pem())?,
    ))
}
