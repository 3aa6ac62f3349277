//! Tokens, read and checked by ring alone: without any of Dayfly's code.

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};
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

/// Reads an access token whose signature is by the key of its `kid` in this JWK Set (RFC 7517): by ES256, RS256 (RFC
/// 7518, sections 3.3 and 3.4) or EdDSA on Ed25519 (RFC 8037, section 3.1), as the key says.
pub fn verify(token: &str, jwks: &str) -> Result<Jwt> {
    verify_as(token, jwks, "at+jwt", "sig")
}

/// Reads a JWT-SVID whose signature is by the key of its `kid` in this SPIFFE bundle, and whose header has no more than
/// the standard allows (SPIFFE JWT-SVID, sections 2 and 6).
pub fn verify_svid(token: &str, bundle: &str) -> Result<Jwt> {
    let jwt = verify_as(token, bundle, "JWT", "jwt-svid")?;
    let header = jwt.header.as_object().context("a header is an object")?;
    ensure!(header.keys().all(|name| ["alg", "kid", "typ"].contains(&&**name)), "header {header:?}");
    Ok(jwt)
}

/// Reads a status list token whose signature is by the key of its `kid` in this JWK Set.
pub fn verify_status_list(token: &str, jwks: &str) -> Result<Jwt> {
    verify_as(token, jwks, "statuslist+jwt", "sig")
}

fn verify_as(token: &str, jwks: &str, typ: &str, key_use: &str) -> Result<Jwt> {
    let jwt = read(token)?;
    ensure!(jwt.header["typ"] == typ, "typ is {}", jwt.header["typ"]);
    let jwks: Value = serde_json::from_str(jwks).context("the JWK Set is not JSON")?;
    let keys = jwks["keys"].as_array().context("the JWK Set has no keys")?;
    let of_kid: Vec<_> = keys.iter().filter(|key| key["kid"] == jwt.header["kid"]).collect();
    let [key] = of_kid.as_slice() else {
        anyhow::bail!("{} keys have kid {}", of_kid.len(), jwt.header["kid"])
    };
    ensure!(key["use"] == key_use, "the key is for {}", key["use"]);
    ensure!(["d", "p", "k"].iter().all(|private| key.get(private).is_none()), "a private key is published");
    ensure!(key["alg"] == jwt.header["alg"], "alg is {}, the key's {}", jwt.header["alg"], key["alg"]);
    let part = |name: &str| decode(key[name].as_str().with_context(|| format!("a key without {name}"))?);
    let (signed, signature) = token.rsplit_once('.').context("not a JWT")?;
    let (signed, signature) = (signed.as_bytes(), decode(signature)?);
    let good =
        match (key["kty"].as_str(), key["crv"].as_str(), key["alg"].as_str()) {
            (Some("EC"), Some("P-256"), Some("ES256")) => {
                let point = [vec![4], part("x")?, part("y")?].concat();
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(signed, &signature)
            }
            (Some("OKP"), Some("Ed25519"), Some("EdDSA")) => {
                UnparsedPublicKey::new(&ED25519, part("x")?).verify(signed, &signature)
            }
            (Some("RSA"), None, Some("RS256")) => RsaPublicKeyComponents { n: part("n")?, e: part("e")? }
                .verify(&RSA_PKCS1_2048_8192_SHA256, signed, &signature),
            _ => anyhow::bail!("the key is of another kind: {key}"),
        };
    good.ok().context("the signature does not verify")?;
    Ok(jwt)
}

/// The same header and claims with other members in the header, under the signature of the first.
pub fn with_header(token: &str, change: impl FnOnce(&mut Value)) -> Result<String> {
    let [header, claims, signature] = parts(token)?;
    let mut header = json_of(header)?;
    change(&mut header);
    Ok(format!("{}.{claims}.{signature}", encode(&header)))
}

/// The same claims, signed by HS256 with these bytes as the secret: what a verifier that takes `alg` from the token
/// would check with a public key.
pub fn by_hs256(token: &str, secret: &[u8]) -> Result<String> {
    let [header, claims, _] = parts(token)?;
    let mut header = json_of(header)?;
    header["alg"] = "HS256".into();
    let signed = format!("{}.{claims}", encode(&header));
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret);
    let tag = ring::hmac::sign(&key, signed.as_bytes());
    Ok(format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(tag)))
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
