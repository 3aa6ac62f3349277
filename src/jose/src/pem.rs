//! PEM (RFC 7468), one section of it. The content may be a private key: what it is read into is wiped.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dayfly_core::secret::Secret;

/// The only section of a text, with what it says it is: `PRIVATE KEY`, `CERTIFICATE`, ...
pub(crate) fn only_section(text: &[u8]) -> Result<(&str, Secret), PemFault> {
    let text = std::str::from_utf8(text).map_err(|_| PemFault::None)?;
    let (_, rest) = text.split_once("-----BEGIN ").ok_or(PemFault::None)?;
    let (label, rest) = rest.split_once("-----").ok_or(PemFault::Malformed)?;
    let (body, after) = rest.split_once("-----END ").ok_or(PemFault::Malformed)?;
    let after = after.strip_prefix(label).and_then(|after| after.strip_prefix("-----"));
    if after.ok_or(PemFault::Malformed)?.contains("-----BEGIN ") {
        return Err(PemFault::Several);
    }
    let mut base64 = Vec::with_capacity(body.len());
    base64.extend(body.bytes().filter(|byte| !byte.is_ascii_whitespace()));
    let base64 = Secret::from(base64);
    let content = STANDARD.decode(base64.expose()).map_err(|_| PemFault::Malformed)?;
    Ok((label, Secret::from(content)))
}

/// A text is not one PEM section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PemFault {
    /// There is none.
    None,
    /// There are several.
    Several,
    /// It does not end, or its content is not base64.
    Malformed,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn takes_one_section_and_no_more() {
        let good = "comment\n-----BEGIN X Y-----\nQUJD\nREVG\n-----END X Y-----\n";
        let (label, content) = only_section(good.as_bytes()).ok().unwrap();
        assert_eq!((label, content.expose()), ("X Y", b"ABCDEF".as_slice()));
        for (bad, fault) in [
            ("", PemFault::None),
            ("-----BEGIN X", PemFault::Malformed),
            ("-----BEGIN X-----\nQUJD", PemFault::Malformed),
            ("-----BEGIN X-----\nQUJD\n-----END Y-----", PemFault::Malformed),
            ("-----BEGIN X-----\nA: b\nQUJD\n-----END X-----", PemFault::Malformed),
            (&*good.repeat(2), PemFault::Several),
        ] {
            assert_eq!(only_section(bad.as_bytes()).err(), Some(fault), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), text in "(-----|BEGIN |END |X|\n){0,12}") {
            let _ = only_section(&bytes);
            let _ = only_section(text.as_bytes());
        }
    }
}
