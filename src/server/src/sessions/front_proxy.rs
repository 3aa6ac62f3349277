//! That a request was forwarded by the home cluster's API server, and whom that names.
//!
//! What a request's headers say is believed of the front-proxy certificate alone. The handshake asks for it, and each request is
//! looked at again: a connection lives longer than a CA that is taken away.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use axum::http::HeaderMap;
use axum::http::header::HeaderName;
use dayfly_broker::SessionRequest;
use dayfly_core::ports::Clock;
use dayfly_kube::FrontProxy;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::status::Refused;

/// For how long what was read of the API server is believed when it cannot be read again.
const BELIEVED: Duration = Duration::from_secs(600);

/// What is known of the API server's front proxy.
pub(super) struct Trust {
    current: ArcSwapOption<Current>,
    clock: Arc<dyn Clock>,
}

struct Current {
    front_proxy: FrontProxy,
    verifier: Arc<dyn ClientCertVerifier>,
    /// When it was read, by the monotonic clock.
    read_at: Duration,
}

impl Trust {
    /// Nothing is known yet.
    pub(super) fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { current: ArcSwapOption::empty(), clock })
    }

    /// This was read now.
    ///
    /// # Errors
    /// When it has no CA that can be used. What was known is known still.
    pub(super) fn replace(&self, front_proxy: FrontProxy) -> Result<(), String> {
        let read_at = self.clock.monotonic();
        let known = self.current.load_full().filter(|known| known.front_proxy == front_proxy);
        let verifier = match known {
            Some(known) => Arc::clone(&known.verifier),
            None => verifier_of(&front_proxy.client_ca)?,
        };
        self.current.store(Some(Arc::new(Current { front_proxy, verifier, read_at })));
        Ok(())
    }

    /// Whom a request is of: the connection that it came by showed these certificates, the leaf first.
    pub(super) fn request(
        &self,
        certificates: &[CertificateDer<'_>],
        headers: &HeaderMap,
    ) -> Result<SessionRequest, Refused> {
        let current = self
            .current
            .load_full()
            .filter(|current| self.clock.monotonic().saturating_sub(current.read_at) <= BELIEVED);
        let Some(current) = current else {
            let message = "by what the API server shows who it is cannot be read from it now";
            return Err(Refused::unavailable(message, Duration::from_secs(5)));
        };
        let not_by_it = || {
            Refused::unauthorized(
                "only the cluster's API server may call here, with its front-proxy certificate",
            )
        };
        let (leaf, intermediates) = certificates.split_first().ok_or_else(not_by_it)?;
        let now = UnixTime::since_unix_epoch(Duration::from_millis(self.clock.now().as_millis()));
        current.verifier.verify_client_cert(leaf, intermediates, now).map_err(|_| not_by_it())?;
        let FrontProxy { allowed_names, .. } = &current.front_proxy;
        if !allowed_names.is_empty() && !common_name(leaf).is_some_and(|name| allowed_names.contains(&name)) {
            return Err(not_by_it());
        }
        named(&current.front_proxy, headers)
    }
}

/// The user that the headers name. Which headers those are, the API server has said.
fn named(front_proxy: &FrontProxy, headers: &HeaderMap) -> Result<SessionRequest, Refused> {
    let text = |value: &http::HeaderValue| {
        String::from_utf8(value.as_bytes().to_vec())
            .map_err(|_| Refused::bad_request("a header of the API server is not UTF-8"))
    };
    let first = |names: &[String]| {
        let values = names.iter().filter_map(|name| headers.get(name));
        values.map(text).find(|value| value.as_ref().map_or(true, |value| !value.is_empty())).transpose()
    };
    let groups = front_proxy.group_headers.iter().flat_map(|name| headers.get_all(name));
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in headers {
        if let Some(key) = extra_key(&front_proxy.extra_prefixes, name) {
            extra.entry(key).or_default().push(text(value)?);
        }
    }
    let username = first(&front_proxy.username_headers)?;
    Ok(SessionRequest {
        username: username.ok_or_else(|| Refused::unauthorized("the API server names no user"))?,
        uid: first(&front_proxy.uid_headers)?.unwrap_or_default(),
        groups: groups.map(text).collect::<Result<_, _>>()?,
        extra,
        audit_id: headers.get("audit-id").map(text).transpose()?.unwrap_or_default(),
    })
}

/// What a header is the extra of, as the API server writes it: in lower case, percent-encoded.
fn extra_key(prefixes: &[String], header: &HeaderName) -> Option<String> {
    let name = header.as_str();
    let key = prefixes.iter().find_map(|prefix| name.strip_prefix(prefix.to_ascii_lowercase().as_str()))?;
    Some(percent_decoded(key).unwrap_or_else(|| key.to_owned()))
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let mut digit = || char::from(bytes.next()?).to_digit(16);
            decoded.push(u8::try_from(digit()? * 16 + digit()?).ok()?);
        } else {
            decoded.push(byte);
        }
    }
    String::from_utf8(decoded).ok()
}

/// The subject's common name, where it has exactly one.
fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let mut names = certificate.subject().iter_common_name();
    let name = names.next()?.as_str().ok()?.to_owned();
    names.next().is_none().then_some(name)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn verifier_of(ca_pem: &str) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
        let certificate = certificate.map_err(|error| format!("requestheader-client-ca-file: {error}"))?;
        roots.add(certificate).map_err(|error| format!("requestheader-client-ca-file: {error}"))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build();
    verifier.map(|verifier| verifier as _).map_err(|error| format!("requestheader-client-ca-file: {error}"))
}

/// Asks for the certificate in the handshake: whoever has none does not come as far as a request.
pub(super) fn at_handshake(trust: &Arc<Trust>) -> Arc<dyn ClientCertVerifier> {
    Arc::new(AtHandshake { trust: Arc::clone(trust), provider: provider() })
}

struct AtHandshake {
    trust: Arc<Trust>,
    provider: Arc<CryptoProvider>,
}

impl std::fmt::Debug for AtHandshake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AtHandshake")
    }
}

impl ClientCertVerifier for AtHandshake {
    /// None are hinted at: they change.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let known = self.trust.current.load_full();
        let known = known.ok_or_else(|| rustls::Error::General("no front proxy is known yet".to_owned()))?;
        known.verifier.verify_client_cert(leaf, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests;
