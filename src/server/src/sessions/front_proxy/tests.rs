use dayfly_core::ports::TestClock;
use dayfly_core::time::Timestamp;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair};

use super::*;

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self { pem: params.self_signed(&key).unwrap().pem(), issuer: Issuer::new(params, key) }
    }

    fn certificate(&self, name: &str, usage: ExtendedKeyUsagePurpose) -> [CertificateDer<'static>; 1] {
        let mut params = CertificateParams::default();
        params.extended_key_usages = vec![usage];
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&KeyPair::generate().unwrap(), &self.issuer).unwrap();
        [certificate.der().clone()]
    }

    fn client(&self, name: &str) -> [CertificateDer<'static>; 1] {
        self.certificate(name, ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn front_proxy(&self, names: &[&str]) -> FrontProxy {
        let list = |name: &str| vec![name.to_owned()];
        FrontProxy {
            client_ca: self.pem.clone(),
            allowed_names: names.iter().map(|&name| name.to_owned()).collect(),
            username_headers: list("X-Remote-User"),
            uid_headers: list("X-Remote-Uid"),
            group_headers: list("X-Remote-Group"),
            extra_prefixes: list("X-Remote-Extra-"),
        }
    }
}

fn headers(all: &[(&str, &str)]) -> HeaderMap {
    all.iter().map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap())).collect()
}

fn code(request: Result<SessionRequest, Refused>) -> u16 {
    request.unwrap_err().code.as_u16()
}

fn trust() -> (Arc<Trust>, Arc<TestClock>) {
    let clock = Arc::new(TestClock::at(Timestamp::from_secs(1_795_435_200)));
    (Trust::new(clock.clone()), clock)
}

#[test]
fn what_the_headers_say_is_believed_of_the_front_proxys_certificate_alone() {
    let (own, other) = (Authority::new(), Authority::new());
    let (trust, _) = trust();
    let ada = headers(&[("x-remote-user", "ada")]);
    assert_eq!(code(trust.request(&own.client("proxy"), &ada)), 503, "nothing is known yet");
    trust.replace(own.front_proxy(&["proxy"])).unwrap();
    assert_eq!(trust.request(&own.client("proxy"), &ada).unwrap().username, "ada");
    for refused in [
        trust.request(&[], &ada),
        trust.request(&other.client("proxy"), &ada),
        trust.request(&own.client("kubelet"), &ada),
        trust.request(&own.certificate("proxy", ExtendedKeyUsagePurpose::ServerAuth), &ada),
        trust.request(&own.client("proxy"), &headers(&[("x-remote-group", "system:masters")])),
        trust.request(&own.client("proxy"), &headers(&[("x-remote-user", "")])),
    ] {
        assert_eq!(code(refused), 401);
    }
    // Where no names are listed, any of the authority will do: as Kubernetes has it.
    trust.replace(own.front_proxy(&[])).unwrap();
    assert!(trust.request(&own.client("kubelet"), &ada).is_ok());
}

#[test]
fn an_authority_that_is_taken_away_is_not_believed_on_open_connections_either() {
    let (earlier, later) = (Authority::new(), Authority::new());
    let (trust, _) = trust();
    let ada = headers(&[("x-remote-user", "ada")]);
    trust.replace(earlier.front_proxy(&["proxy"])).unwrap();
    let shown = earlier.client("proxy");
    assert!(trust.request(&shown, &ada).is_ok());
    let both =
        FrontProxy { client_ca: format!("{}{}", earlier.pem, later.pem), ..later.front_proxy(&["proxy"]) };
    trust.replace(both).unwrap();
    assert!(trust.request(&shown, &ada).is_ok() && trust.request(&later.client("proxy"), &ada).is_ok());
    trust.replace(later.front_proxy(&["proxy"])).unwrap();
    assert_eq!(code(trust.request(&shown, &ada)), 401);
    // What cannot be used changes nothing.
    let broken = FrontProxy { client_ca: "no PEM".to_owned(), ..later.front_proxy(&[]) };
    assert!(trust.replace(broken).is_err());
    assert!(trust.request(&later.client("proxy"), &ada).is_ok());
}

#[test]
fn what_was_read_is_believed_for_ten_minutes() {
    let own = Authority::new();
    let (trust, clock) = trust();
    let ada = headers(&[("x-remote-user", "ada")]);
    trust.replace(own.front_proxy(&["proxy"])).unwrap();
    let shown = own.client("proxy");
    clock.advance(BELIEVED);
    assert!(trust.request(&shown, &ada).is_ok());
    clock.advance(Duration::from_secs(1));
    assert_eq!(code(trust.request(&shown, &ada)), 503);
    trust.replace(own.front_proxy(&["proxy"])).unwrap();
    assert!(trust.request(&shown, &ada).is_ok());
}

#[test]
fn a_user_is_named_by_the_headers_that_the_api_server_lists_and_no_others() {
    let front_proxy = Authority::new().front_proxy(&[]);
    let all = headers(&[
        ("x-remote-user", "ada"),
        ("x-remote-uid", "u-1"),
        ("x-remote-group", "on-call"),
        ("x-remote-group", "system:authenticated"),
        ("x-remote-extra-scopes.example.org%2fscope", "a"),
        ("x-remote-extra-scopes.example.org%2fscope", "b"),
        ("x-remote-extra-bad%zz", "c"),
        ("x-forwarded-user", "root"),
        ("audit-id", "4f0c"),
    ]);
    let named = named(&front_proxy, &all).unwrap();
    assert_eq!(
        (named.username.as_str(), named.uid.as_str(), named.audit_id.as_str()),
        ("ada", "u-1", "4f0c")
    );
    assert_eq!(named.groups, ["on-call", "system:authenticated"]);
    assert_eq!(named.extra["scopes.example.org/scope"], ["a", "b"]);
    assert_eq!(named.extra["bad%zz"], ["c"], "what is no encoding is as it is");
    assert_eq!(named.extra.len(), 2);
    let other = FrontProxy { username_headers: vec!["X-Forwarded-User".to_owned()], ..front_proxy.clone() };
    assert_eq!(super::named(&other, &all).unwrap().username, "root");
    let unlisted = FrontProxy { uid_headers: Vec::new(), ..front_proxy };
    assert_eq!(super::named(&unlisted, &all).unwrap().uid, "");
}
