//! A good token in an attacker's hands, and what can be made from it.

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use dayfly_e2e::forger::Forger;
use serde_json::{Value, json};

/// A good token of a pod, which an attacker makes others from.
pub(super) struct Stolen {
    pub(super) token: String,
    pub(super) header: Value,
    pub(super) claims: Value,
    /// The public key of its cluster.
    pub(super) key: Value,
    pub(super) forger: Forger,
    /// A URL of the attacker's.
    pub(super) url: String,
}

impl Stolen {
    /// With another header, signed by the attacker.
    pub(super) fn header(&self, change: impl FnOnce(&mut Value)) -> String {
        let mut header = self.header.clone();
        change(&mut header);
        self.forger.sign(&header.to_string(), &self.claims.to_string()).unwrap()
    }

    /// With this in the header, signed by the attacker: under the cluster's key id, and under the attacker's own.
    pub(super) fn pointing(&self, name: &str, to: &Value) -> Vec<String> {
        let kids = [self.header["kid"].clone(), json!("attacker")];
        let forged = kids.map(|kid| {
            self.header(|header| {
                header[name] = to.clone();
                header["kid"] = kid;
            })
        });
        forged.to_vec()
    }

    /// With another claim, signed by the attacker.
    pub(super) fn claim(&self, name: &str, value: Value) -> String {
        let mut claims = self.claims.clone();
        claims[name] = value;
        self.forger.sign(&self.header.to_string(), &claims.to_string()).unwrap()
    }

    /// With a member twice: before the good one, and after it.
    pub(super) fn twice(&self, name: &str, other: &Value) -> [String; 2] {
        let good = self.claims.to_string();
        let (inner, member) = (&good[1..good.len() - 1], format!("{}:{other}", json!(name)));
        let payloads = [format!("{{{member},{inner}}}"), format!("{{{inner},{member}}}")];
        payloads.map(|payload| self.forger.sign(&self.header.to_string(), &payload).unwrap())
    }

    /// Signed by nobody, with this as the signature.
    pub(super) fn signature(&self, signature: &[u8]) -> String {
        let signed = self.token.rsplit_once('.').unwrap().0;
        format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    }

    /// The cluster's public key in every form that could be taken for a secret.
    pub(super) fn public_key(&self) -> Vec<Vec<u8>> {
        const SPKI: [u8; 26] = [
            0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
            0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
        ];
        let part = |name: &str| BASE64_URL_SAFE_NO_PAD.decode(self.key[name].as_str().unwrap()).unwrap();
        let point = [vec![4], part("x"), part("y")].concat();
        let der = [SPKI.as_slice(), &point].concat();
        let pem = format!(
            "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
            BASE64_STANDARD
                .encode(&der)
                .as_bytes()
                .chunks(64)
                .map(String::from_utf8_lossy)
                .collect::<Vec<_>>()
                .join("\n")
        );
        vec![pem.into_bytes(), der, point, self.key.to_string().into_bytes(), Vec::new()]
    }
}
