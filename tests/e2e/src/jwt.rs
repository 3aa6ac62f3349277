//! Tokens, read and checked by ring alone: without any of Dayfly's code.

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use serde_json::{Value, json};

/// A JWT's header and claims, checked or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jwt {
    /// Its header.
    pub header: Value,
    /// Its claims.
    pub claims: Value,
}

/// Reads a token and checks nothing.
pub fn read(token: &str) -> Result<Jwt> {
    let [header, claims, _] = parts(token)?;
    Ok(Jwt { header: json_of(header)?, claims: json_of(claims)? })
}

/// Reads an ES256 token (RFC 7518, section 3.4) whose signature is by the key of its `kid` in this JWK Set (RFC 7517).
pub fn verify(token: &str, jwks: &str) -> Result<Jwt> {
    let jwt = read(token)?;
    ensure!(jwt.header["alg"] == "ES256", "alg is {}", jwt.header["alg"]);
    let jwks: Value = serde_json::from_str(jwks).context("the JWK Set is not JSON")?;
    let keys = jwks["keys"].as_array().context("the JWK Set has no keys")?;
    let of_kid: Vec<_> = keys.iter().filter(|key| key["kid"] == jwt.header["kid"]).collect();
    let [key] = of_kid.as_slice() else {
        anyhow::bail!("{} keys have kid {}", of_kid.len(), jwt.header["kid"])
    };
    ensure!(key["kty"] == "EC" && key["crv"] == "P-256", "the key is no P-256 key: {key}");
    ensure!(key.get("d").is_none(), "the key set has a private key");
    ensure!(key.get("alg").is_none_or(|alg| alg == "ES256"), "the key is for {}", key["alg"]);
    let mut point = vec![4];
    for coordinate in ["x", "y"] {
        point.extend(decode(key[coordinate].as_str().context("a key without coordinates")?)?);
    }
    let (signed, signature) = token.rsplit_once('.').context("not a JWT")?;
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
        .verify(signed.as_bytes(), &decode(signature)?)
        .ok()
        .context("the signature does not verify")?;
    Ok(jwt)
}

/// The same token with other claims, under the signature of the first.
pub fn with_claims(token: &str, change: impl FnOnce(&mut Value)) -> Result<String> {
    let [header, claims, signature] = parts(token)?;
    let mut claims = json_of(claims)?;
    change(&mut claims);
    Ok(format!("{header}.{}.{signature}", encode(&claims)))
}

/// The same claims, without a signature (`alg` `none`, RFC 7518, section 3.6).
pub fn unsigned(token: &str) -> Result<String> {
    let [_, claims, _] = parts(token)?;
    Ok(format!("{}.{claims}.", encode(&json!({ "alg": "none", "typ": "JWT" }))))
}

/// The same header and claims, with a signature of which one bit is another.
pub fn tampered(token: &str) -> Result<String> {
    let (signed, signature) = token.rsplit_once('.').context("not a JWT")?;
    let mut signature = decode(signature)?;
    *signature.first_mut().context("no signature")? ^= 1;
    Ok(format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature)))
}

fn parts(token: &str) -> Result<[&str; 3]> {
    let parts: Vec<_> = token.split('.').collect();
    parts.try_into().ok().context("a JWT has three parts")
}

fn json_of(part: &str) -> Result<Value> {
    Ok(serde_json::from_slice(&decode(part)?)?)
}

fn decode(part: &str) -> Result<Vec<u8>> {
    Ok(BASE64_URL_SAFE_NO_PAD.decode(part)?)
}

fn encode(part: &Value) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(part.to_string())
}
