use base64::Engine as _;
use proptest::prelude::*;

use super::*;
use crate::{BASE64URL, SigningKey, Times, peek};

const PAYLOAD: &str =
    "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";

/// RFC 7515, appendix A.2.
const RS256_KEY: &str = r#"{"kty":"RSA","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ","e":"AQAB"}"#;
const RS256_SIGNATURE: &str = "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
/// RFC 7515, appendix A.3.
const ES256_KEY: &str = r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#;
const ES256_SIGNATURE: &str =
    "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";

const OPEN: Policy = Policy { typ: Typ::JwtOrAbsent, without_kid: WithoutKid::OnlyKeyThatFits };

fn set(keys: &[&str]) -> KeySet {
    let text = format!(r#"{{"keys":[{}]}}"#, keys.join(","));
    let set = KeySet::parse(text.as_bytes()).unwrap();
    assert_eq!(set.len(), keys.len());
    set
}

fn token(header: &str, payload: &str, signature: &str) -> String {
    let encode = |text: &str| BASE64URL.encode(text);
    format!("{}.{}.{signature}", encode(header), encode(payload))
}

/// A key, its set, and a token over `header` (where `KID` is its id) and `payload`, signed by it whatever they say.
fn signed(header: &str, payload: &str) -> (KeySet, String) {
    let random = crate::signing::system_random();
    let algorithm = &ring::signature::ECDSA_P256_SHA256_FIXED_SIGNING;
    let key = SigningKey::generate().unwrap();
    let pair = ring::signature::EcdsaKeyPair::from_pkcs8(algorithm, key.to_der().expose(), &random).unwrap();
    let unsigned = token(&header.replace("KID", key.key_id().as_str()), payload, "");
    let signature = pair.sign(&random, unsigned.trim_end_matches('.').as_bytes()).unwrap();
    (KeySet::new(vec![key.public_jwk().into()]), unsigned + &BASE64URL.encode(signature.as_ref()))
}

const HEADER: &str = r#"{"alg":"ES256","kid":"KID","typ":"JWT"}"#;

#[test]
fn verifies_the_examples_of_rfc_7515() {
    let keys = set(&[RS256_KEY, ES256_KEY]);
    for (header, signature) in
        [(r#"{"alg":"RS256"}"#, RS256_SIGNATURE), (r#"{"alg":"ES256"}"#, ES256_SIGNATURE)]
    {
        let token = format!("{}.{PAYLOAD}.{signature}", BASE64URL.encode(header));
        let verified = verify(&token, &keys, OPEN).unwrap();
        assert_eq!(verified.claims.issuer.as_deref(), Some("joe"));
        assert_eq!(verified.claims.all["http://example.com/is_root"], true);
        assert_eq!(verify(&token, &keys, Policy::kubernetes()), Err(VerifyError::NoKid));
        let times = Times { leeway: std::time::Duration::ZERO };
        let at = dayfly_core::time::Timestamp::from_secs;
        assert!(times.check(&verified.claims, at(1_300_819_379)).is_ok());
        assert!(times.check(&verified.claims, at(1_300_819_380)).is_err());
    }
}

/// Made with joserfc 1.8.0 (Python): a key and a token for every algorithm there is.
#[test]
fn verifies_what_another_library_signed() {
    let vectors: serde_json::Value = serde_json::from_str(include_str!("joserfc.json")).unwrap();
    let set = vectors.to_string();
    let tokens = vectors["tokens"].as_array().unwrap();
    let keys = KeySet::parse(set.as_bytes()).unwrap();
    assert_eq!((keys.len(), tokens.len()), (10, 10));
    for token in tokens.iter().map(|token| token.as_str().unwrap()) {
        let verified = verify(token, &keys, Policy::kubernetes()).unwrap();
        assert_eq!(
            verified.header.kid.unwrap().to_uppercase().get(..2),
            verified.header.alg.name().to_uppercase().get(..2)
        );
        assert!(verified.claims.is_only_for("dayfly"));
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let changed =
            format!("{signed}.{}{}", if signature.starts_with('A') { 'B' } else { 'A' }, &signature[1..]);
        assert_eq!(verify(&changed, &keys, Policy::kubernetes()), Err(VerifyError::Signature));
    }
}

#[test]
fn a_token_without_kid_needs_the_only_key_that_fits() {
    let token = format!("{}.{PAYLOAD}.{ES256_SIGNATURE}", BASE64URL.encode(r#"{"alg":"ES256"}"#));
    let two = set(&[
        ES256_KEY,
        r#"{"kty":"EC","crv":"P-256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}"#,
    ]);
    assert_eq!(verify(&token, &two, OPEN), Err(VerifyError::NoKid));
    assert_eq!(verify(&token, &set(&[RS256_KEY]), OPEN), Err(VerifyError::UnknownKey));
    assert_eq!(verify(&token, &KeySet::default(), OPEN), Err(VerifyError::UnknownKey));
}

#[test]
fn keys_that_share_a_kid_are_told_apart_by_alg() {
    let (_, es_token) = signed(HEADER, "{}");
    let with_kid = |key: &str| key.replace(r#"{"kty""#, r#"{"kid":"k","kty""#);
    let keys = set(&[&with_kid(RS256_KEY), &with_kid(ES256_KEY)]);
    assert!(keys.has("k") && !keys.has("j"));
    let header = r#"{"alg":"ES384","kid":"k"}"#;
    assert_eq!(verify(&token(header, "{}", "AA"), &keys, OPEN), Err(VerifyError::Algorithm));
    let header = r#"{"alg":"ES256","kid":"k"}"#;
    assert_eq!(verify(&token(header, "{}", "AA"), &keys, OPEN), Err(VerifyError::Signature));
    assert_eq!(verify(&es_token, &keys, OPEN), Err(VerifyError::UnknownKey));
}

#[test]
fn the_algorithm_is_the_keys() {
    // The classic: HMAC keyed with the public key's text, or no signature at all.
    let hmac = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, ES256_KEY.as_bytes());
    let unsigned = token(r#"{"alg":"HS256","kid":"k"}"#, r#"{"sub":"admin"}"#, "");
    let tag = ring::hmac::sign(&hmac, unsigned.trim_end_matches('.').as_bytes());
    let confused = unsigned + &BASE64URL.encode(tag.as_ref());
    let keys = set(&[&ES256_KEY.replace(r#"{"kty""#, r#"{"kid":"k","kty""#)]);
    for token in [
        confused,
        token(r#"{"alg":"none","kid":"k"}"#, "{}", "AA"),
        token(r#"{"alg":"None","kid":"k"}"#, "{}", "AA"),
        token(r#"{"alg":"es256","kid":"k"}"#, "{}", "AA"),
        token(r#"{"alg":["ES256"],"kid":"k"}"#, "{}", "AA"),
        token(r#"{"kid":"k"}"#, "{}", "AA"),
    ] {
        assert_eq!(verify(&token, &keys, OPEN), Err(TokenShape::Algorithm.into()));
    }
    let token = token(r#"{"alg":"RS256","kid":"k"}"#, "{}", "AA");
    assert_eq!(verify(&token, &keys, OPEN), Err(VerifyError::Algorithm));
}

#[test]
fn keys_in_the_header_are_ignored() {
    let attacker = SigningKey::generate().unwrap();
    let header = format!(
        r#"{{"alg":"ES256","kid":"KID","jku":"https://evil.example","x5u":"x","x5c":["x"],"jwk":{}}}"#,
        attacker.public_jwk().to_json()
    );
    let (keys, token) = signed(&header, "{}");
    assert!(verify(&token, &keys, OPEN).is_ok());
    let by_attacker = attacker.sign_jws("JWT", b"{}").unwrap();
    assert_eq!(verify(by_attacker.expose_text().unwrap(), &keys, OPEN), Err(VerifyError::UnknownKey));
}

#[test]
fn the_typ_must_be_the_expected_one() {
    let access = Policy::exactly("at+jwt");
    for (typ, as_access, as_kubernetes) in [
        (r#","typ":"at+jwt""#, true, false),
        (r#","typ":"AT+JWT""#, false, false),
        (r#","typ":"JWT""#, false, true),
        ("", false, true),
        (r#","typ":"""#, false, false),
    ] {
        let (keys, token) = signed(&format!(r#"{{"alg":"ES256","kid":"KID"{typ}}}"#), "{}");
        assert_eq!(verify(&token, &keys, access).is_ok(), as_access, "{typ}");
        assert_eq!(verify(&token, &keys, Policy::kubernetes()).is_ok(), as_kubernetes, "{typ}");
    }
    let (keys, token) = signed(HEADER, "{}");
    assert_eq!(verify(&token, &keys, access).unwrap_err().to_string(), "the token's typ is not at+jwt");
}

#[test]
fn a_good_signature_does_not_excuse_a_strange_shape() {
    for (header, payload, shape) in [
        (r#"{"alg":"ES256","kid":"KID","kid":"KID"}"#, "{}", TokenShape::Duplicate),
        (r#"{"alg":"ES256","alg":"ES256","kid":"KID"}"#, "{}", TokenShape::Duplicate),
        (r#"{"alg":"ES256","kid":"KID","crit":["exp"],"exp":1}"#, "{}", TokenShape::Critical),
        (r#"{"alg":"ES256","kid":"KID","crit":[]}"#, "{}", TokenShape::Critical),
        (r#"{"alg":"ES256","kid":"KID","b64":false}"#, "{}", TokenShape::Critical),
        (r#"{"alg":"ES256","kid":7}"#, "{}", TokenShape::Header),
        (r#"{"alg":"ES256","kid":"KID","typ":null}"#, "{}", TokenShape::Header),
        (r#"["ES256"]"#, "{}", TokenShape::Header),
        (HEADER, r#"{"sub":"a","sub":"b"}"#, TokenShape::Duplicate),
        (HEADER, r#"{"x":{"sub":"a","sub":"b"}}"#, TokenShape::Duplicate),
        (HEADER, "[]", TokenShape::Claims),
        (HEADER, "not json", TokenShape::Claims),
        (HEADER, r#"{"aud":7}"#, TokenShape::Claim("aud")),
    ] {
        let (keys, token) = signed(header, payload);
        assert_eq!(verify(&token, &keys, OPEN), Err(shape.into()), "{header} {payload}");
        assert_eq!(peek(&token), Err(shape), "{header} {payload}");
    }
}

#[test]
fn refuses_what_is_not_three_strict_parts() {
    let (keys, good) = signed(HEADER, r#"{"sub":"s"}"#);
    assert!(verify(&good, &keys, OPEN).is_ok());
    let huge = format!("{good}{}", "A".repeat(dayfly_core::limits::TOKEN_BYTES));
    let parts: Vec<&str> = good.split('.').collect();
    for (bad, shape) in [
        (String::new(), TokenShape::Parts),
        ("..".to_owned(), TokenShape::Parts),
        (parts[0].to_owned(), TokenShape::Parts),
        (parts[..2].join("."), TokenShape::Parts),
        (format!("{}.{}.", parts[0], parts[1]), TokenShape::Parts),
        (format!("{good}.AA"), TokenShape::Parts),
        (format!("{good}="), TokenShape::Base64),
        (format!(" {good}"), TokenShape::Base64),
        (format!("{good}\n"), TokenShape::Base64),
        (huge, TokenShape::TooLarge),
    ] {
        assert_eq!(verify(&bad, &keys, OPEN), Err(shape.into()), "{bad}");
    }
}

#[test]
fn any_change_breaks_the_signature() {
    let (keys, good) = signed(HEADER, r#"{"sub":"s","scope":"read"}"#);
    for at in 0..good.len() {
        let mut bytes = good.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let bad = String::from_utf8(bytes).unwrap();
        assert!(verify(&bad, &keys, OPEN).is_err(), "changed at {at}");
        assert!(verify(&good[..at], &keys, OPEN).is_err(), "cut at {at}");
    }
}

#[test]
fn peek_reads_what_is_not_verified() {
    let peeked = peek(&token(r#"{"alg":"RS256","kid":"k"}"#, r#"{"iss":"https://k","aud":"dayfly"}"#, "AA"));
    let peeked = peeked.unwrap();
    assert_eq!((peeked.header.alg, peeked.header.kid.as_deref()), (Alg::Rs256, Some("k")));
    assert!(peeked.claims.is_only_for("dayfly"));
}

#[test]
fn errors_say_nothing_of_the_token() {
    let (keys, token) = signed(HEADER, r#"{"sub":"hunter2","exp":"hunter2"}"#);
    let error = verify(&token, &keys, OPEN).unwrap_err();
    assert!(!format!("{error}{error:?}").contains("hunter2"));
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in ".{0,200}", parts in prop::collection::vec(any::<u8>(), 0..80)) {
        let keys = set(&[RS256_KEY, ES256_KEY]);
        let encoded = BASE64URL.encode(&parts);
        for token in [text.clone(), format!("{encoded}.{encoded}.{encoded}"), token(r#"{"alg":"ES256"}"#, &text, &encoded)] {
            let _ = peek(&token);
            prop_assert!(verify(&token, &keys, OPEN).is_err());
        }
    }

    #[test]
    fn no_key_set_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), x in "[A-Za-z0-9_-]{0,90}") {
        let _ = KeySet::parse(&bytes);
        let text = format!(r#"{{"keys":[{{"kty":"EC","crv":"P-256","x":"{x}","y":"{x}"}},{{"kty":"RSA","n":"{x}","e":"{x}"}}]}}"#);
        let keys = KeySet::parse(text.as_bytes()).unwrap();
        let token = token(r#"{"alg":"ES256"}"#, "{}", &BASE64URL.encode([1; 64]));
        prop_assert!(verify(&token, &keys, OPEN).is_err());
    }
}
