"""Makes vectors.json beside it: keys, tokens good and bad, and what a verifier must say to each.

None of Dayfly's code makes any of it: keys and signatures are joserfc's, or, where no decent library would make such a token,
put together here byte by byte. `just vectors` runs it with the version of joserfc that it wants. The private keys are new with
each run and kept nowhere.
"""

import base64
import hashlib
import hmac
import json
import pathlib

import joserfc
from joserfc import jws
from joserfc.jwk import ECKey, OKPKey, RSAKey

VERSION = "1.8.0"
NOW = 1_795_435_200
ISSUER = "https://dayfly.example.org"
TRUST_DOMAIN = "prod.example.org"
AUDIENCE = "https://orders.example"
SCOPE = "orders:read"
TOKEN_BYTES = 8 * 1024


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def thumbprint(key):
    """RFC 7638, which joserfc does itself."""
    return key.thumbprint()


class Named:
    """A key with the algorithm it is for."""

    def __init__(self, key, alg, use):
        self.key, self.alg, self.kid = key, alg, thumbprint(key)
        self.jwk = {**key.as_dict(private=False), "kid": self.kid, "alg": alg, "use": use}


es256 = Named(ECKey.generate_key("P-256"), "ES256", "sig")
es256_next = Named(ECKey.generate_key("P-256"), "ES256", "sig")
eddsa = Named(OKPKey.generate_key("Ed25519"), "EdDSA", "sig")
rs256 = Named(RSAKey.generate_key(2048), "RS256", "sig")
svid = Named(ECKey.generate_key("P-256"), "ES256", "jwt-svid")
stranger = Named(ECKey.generate_key("P-256"), "ES256", "sig")
holder = ECKey.generate_key("P-256")
certificate = b"stands for a certificate: its digest is all that is looked at"

JWKS = {"keys": [key.jwk for key in (es256, es256_next, eddsa, rs256)]}
BUNDLE = {"spiffe_sequence": 1, "spiffe_refresh_hint": 300, "keys": [svid.jwk]}


def access_claims(**changes):
    claims = {
        "iss": ISSUER,
        "sub": "east:payments:api",
        "aud": AUDIENCE,
        "exp": NOW + 300,
        "nbf": NOW,
        "iat": NOW,
        "jti": "01a207bf-a800-7000-8000-000000000001",
        "client_id": "east:payments:api",
        "scope": "orders:read orders:write",
        "dayfly": origin(),
    }
    return changed(claims, changes)


def svid_claims(**changes):
    claims = {
        "sub": f"spiffe://{TRUST_DOMAIN}/cluster/east/ns/payments/sa/api",
        "aud": [AUDIENCE],
        "exp": NOW + 300,
        "iat": NOW,
        "jti": "01a207bf-a800-7000-8000-000000000002",
        "scope": "orders:read",
        "dayfly": origin(),
    }
    return changed(claims, changes)


def origin(**changes):
    claim = {
        "cluster": "east",
        "owner": "payments-batch",
        "namespace_owner": "payments",
        "namespace": "payments",
        "service_account": "api",
        "service_account_uid": "11111111-1111-4111-8111-111111111111",
        "pod": "api-0",
        "pod_uid": "22222222-2222-4222-8222-222222222222",
        "node": "node-1",
        "node_uid": "33333333-3333-4333-8333-333333333333",
        "grant": "payments/orders",
        "target": "orders",
    }
    return changed(claim, changes)


def changed(members, changes):
    members.update(changes)
    return {name: value for name, value in members.items() if value is not GONE}


GONE = object()


def encode(part):
    return b64(part if isinstance(part, bytes) else json.dumps(part, separators=(",", ":")).encode())


def sign(claims, key=es256, typ="at+jwt", **header):
    header = changed({"alg": key.alg, "kid": key.kid, "typ": typ}, header)
    payload = claims if isinstance(claims, bytes) else json.dumps(claims, separators=(",", ":")).encode()
    return serialize(header, payload, key)


def serialize(header, payload, key):
    """joserfc's, but with whatever header: it refuses some of those that are wanted here."""
    signing_input = f"{encode(header)}.{encode(payload)}".encode()
    algorithm = jws.JWSRegistry.algorithms[key.alg]
    return f"{signing_input.decode()}.{b64(algorithm.sign(signing_input, key.key))}"


def hs256(header, claims, secret):
    signing_input = f"{encode(header)}.{encode(claims)}"
    return f"{signing_input}.{b64(hmac.new(secret, signing_input.encode(), hashlib.sha256).digest())}"


def vectors():
    good = sign(access_claims())
    head, body, signature = good.split(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    pem = es256.key.as_pem(private=False)
    access = []

    def case(name, token, expect, **more):
        access.append({"name": name, "profile": "access-token", "token": token, "expect": expect, **more})

    case("as Dayfly mints it", good, "OK")
    case("joserfc's own serialization", jws.serialize_compact(
        {"alg": "ES256", "kid": es256.kid, "typ": "at+jwt"}, json.dumps(access_claims()), es256.key), "OK")
    case("by the next key", sign(access_claims(), es256_next), "OK")
    case("by EdDSA", sign(access_claims(), eddsa), "OK")
    case("by RS256", sign(access_claims(), rs256), "OK")
    case("audience as an array of one", sign(access_claims(aud=[AUDIENCE])), "OK")
    case("without nbf", sign(access_claims(nbf=GONE)), "OK")
    case("expired less than the leeway ago", sign(access_claims(exp=NOW - 29)), "OK")
    case("not yet, by less than the leeway", sign(access_claims(nbf=NOW + 30, iat=NOW + 30)), "OK")
    case("of no pod and no node", sign(access_claims(dayfly=origin(
        pod=GONE, pod_uid=GONE, node=GONE, node_uid=GONE, namespace_owner=GONE))), "OK")
    case("with members of dayfly that are new", sign(access_claims(dayfly=origin(region="north"))), "OK")
    case("with claims of a Grant", sign(access_claims(tenant=["a", "b"])), "OK")
    case("its own key in jwk is ignored", sign(access_claims(), jwk=stranger.jwk), "OK")
    case("jku and x5u are ignored", sign(access_claims(), jku="https://evil.example/", x5u="https://evil.example/"), "OK")

    case("alg none", f"{encode({'alg': 'none', 'kid': es256.kid, 'typ': 'at+jwt'})}.{body}.", "MALFORMED")
    case("alg none with a signature", f"{encode({'alg': 'none', 'kid': es256.kid, 'typ': 'at+jwt'})}.{body}.{signature}",
         "WRONG_ALGORITHM")
    for alg in ("HS256", "hs256", "es256", "NONE", "", None, 7):
        header = {"alg": alg, "kid": es256.kid, "typ": "at+jwt"}
        case(f"alg {alg!r}", hs256(header, access_claims(), pem), "WRONG_ALGORITHM")
    header = {"alg": "HS256", "kid": es256.kid, "typ": "at+jwt"}
    case("HS256 with the public JWK as the secret", hs256(header, access_claims(), json.dumps(es256.jwk).encode()),
         "WRONG_ALGORITHM")
    case("HS256 with the RSA key's PEM as the secret",
         hs256({**header, "kid": rs256.kid}, access_claims(), rs256.key.as_pem(private=False)), "WRONG_ALGORITHM")
    case("alg of another key's", sign(access_claims(), alg="ES384"), "WRONG_ALGORITHM")
    case("RS256 with the kid of an EC key", sign(access_claims(), rs256, kid=es256.kid), "WRONG_ALGORITHM")
    case("PS256 said, RS256 signed", sign(access_claims(), rs256, alg="PS256"), "WRONG_ALGORITHM")
    case("without alg", sign(access_claims(), alg=GONE), "WRONG_ALGORITHM")

    case("by a key that nobody published", sign(access_claims(), stranger), "UNKNOWN_KEY")
    case("by a stranger's key that is in its jwk", sign(access_claims(), stranger, jwk=stranger.jwk), "UNKNOWN_KEY")
    case("by a stranger's key under a known kid", sign(access_claims(), stranger, kid=es256.kid), "BAD_SIGNATURE")
    case("the same, its own key in jwk", sign(access_claims(), stranger, kid=es256.kid, jwk=stranger.jwk), "BAD_SIGNATURE")
    case("by another published key than the kid's", sign(access_claims(), es256_next, kid=es256.kid), "BAD_SIGNATURE")
    case("without kid", sign(access_claims(), kid=GONE), "UNKNOWN_KEY")
    case("kid as a path", sign(access_claims(), kid="../../dev/null"), "UNKNOWN_KEY")
    case("kid as a number", sign(access_claims(), kid=1), "MALFORMED")
    case("by the key of SVIDs", sign(access_claims(), svid), "UNKNOWN_KEY")

    case("truncated signature", f"{head}.{body}.{b64(raw[:-1])}", "BAD_SIGNATURE")
    case("half a signature", f"{head}.{body}.{b64(raw[:32])}", "BAD_SIGNATURE")
    case("signature with a byte more", f"{head}.{body}.{b64(raw + bytes(1))}", "BAD_SIGNATURE")
    case("signature of zeros", f"{head}.{body}.{b64(bytes(64))}", "BAD_SIGNATURE")
    case("without a signature", f"{head}.{body}.", "MALFORMED")
    case("two parts", f"{head}.{body}", "MALFORMED")
    case("four parts", f"{good}.{signature}", "MALFORMED")
    case("empty", "", "MALFORMED")
    case("signature with padding", f"{good}==", "MALFORMED")
    case("a space after it", f"{good} ", "MALFORMED")
    case("other claims under the signature", f"{head}.{encode(access_claims(scope='orders:read admin'))}.{signature}",
         "BAD_SIGNATURE")
    case("another header under the signature",
         f"{encode({'alg': 'ES256', 'typ': 'at+jwt', 'kid': es256.kid, 'x': 1})}.{body}.{signature}", "BAD_SIGNATURE")

    case("typ JWT", sign(access_claims(), typ="JWT"), "WRONG_TYP")
    case("without typ", sign(access_claims(), typ=GONE), "WRONG_TYP")
    case("typ in capitals", sign(access_claims(), typ="AT+JWT"), "WRONG_TYP")
    case("typ as a media type", sign(access_claims(), typ="application/at+jwt"), "WRONG_TYP")
    case("an SVID as an access token", sign(svid_claims(), svid, typ="JWT"), "WRONG_TYP")
    case("an SVID as an access token, by its typ", sign(svid_claims(), svid), "UNKNOWN_KEY")
    case("an SVID's claims by a key of access tokens", sign(svid_claims()), "WRONG_ISSUER")
    case("a DPoP proof", sign(access_claims(), typ="dpop+jwt"), "WRONG_TYP")
    case("crit", sign(access_claims(), crit=["exp"]), "MALFORMED")
    case("crit and b64", sign(access_claims(), crit=["b64"], b64=False), "MALFORMED")

    case("of another issuer", sign(access_claims(iss="https://evil.example")), "WRONG_ISSUER")
    case("issuer with a slash more", sign(access_claims(iss=ISSUER + "/")), "WRONG_ISSUER")
    case("without issuer", sign(access_claims(iss=GONE)), "WRONG_ISSUER")
    case("issuer as a list", sign(access_claims(iss=[ISSUER])), "BAD_CLAIM")
    case("for another audience", sign(access_claims(aud="https://billing.example")), "WRONG_AUDIENCE")
    case("for two audiences", sign(access_claims(aud=[AUDIENCE, "https://billing.example"])), "WRONG_AUDIENCE")
    case("for our audience twice", sign(access_claims(aud=[AUDIENCE, AUDIENCE])), "WRONG_AUDIENCE")
    case("for no audience", sign(access_claims(aud=[])), "WRONG_AUDIENCE")
    case("without audience", sign(access_claims(aud=GONE)), "WRONG_AUDIENCE")
    case("audience as a number", sign(access_claims(aud=1)), "BAD_CLAIM")
    case("audience that begins with ours", sign(access_claims(aud=AUDIENCE + ".evil.example")), "WRONG_AUDIENCE")

    case("expired", sign(access_claims(exp=NOW - 30)), "EXPIRED")
    case("expired long ago", sign(access_claims(exp=1)), "EXPIRED")
    case("without exp", sign(access_claims(exp=GONE)), "BAD_CLAIM")
    case("exp as text", sign(access_claims(exp=str(NOW + 300))), "BAD_CLAIM")
    case("exp below zero", sign(access_claims(exp=-1)), "BAD_CLAIM")
    case("exp beyond all time", sign(access_claims(exp=1e300)), "BAD_CLAIM")
    case("not yet", sign(access_claims(nbf=NOW + 31)), "NOT_YET_VALID")
    case("issued later", sign(access_claims(iat=NOW + 31)), "NOT_YET_VALID")

    case("without jti", sign(access_claims(jti=GONE)), "BAD_CLAIM")
    case("jti that is no UUID", sign(access_claims(jti="1")), "BAD_CLAIM")
    case("jti without hyphens", sign(access_claims(jti="01a207bfa80070008000000000000001")), "BAD_CLAIM")
    case("without iat", sign(access_claims(iat=GONE)), "BAD_CLAIM")
    case("without sub", sign(access_claims(sub=GONE)), "BAD_CLAIM")
    case("without dayfly", sign(access_claims(dayfly=GONE)), "BAD_CLAIM")
    case("dayfly as text", sign(access_claims(dayfly="payments")), "BAD_CLAIM")
    case("dayfly without an owner", sign(access_claims(dayfly=origin(owner=GONE))), "BAD_CLAIM")
    case("dayfly with a uid that is none", sign(access_claims(dayfly=origin(pod_uid="x"))), "BAD_CLAIM")
    case("without scope", sign(access_claims(scope=GONE)), "SCOPE_MISSING")
    case("of another scope", sign(access_claims(scope="orders:write orders:readall")), "SCOPE_MISSING")
    case("scope as a list", sign(access_claims(scope=[SCOPE])), "BAD_CLAIM")

    twice = json.dumps(access_claims(), separators=(",", ":"))
    case("a claim twice", sign((twice[:-1] + ',"aud":"https://billing.example"}').encode()), "MALFORMED")
    case("a member of dayfly twice", sign(
        twice.replace('"cluster":"east"', '"cluster":"east","cluster":"west"').encode()), "MALFORMED")
    kid_twice = f'{{"alg":"ES256","kid":"{stranger.kid}","kid":"{es256.kid}","typ":"at+jwt"}}'.encode()
    case("a member of the header twice", serialize(kid_twice, twice.encode(), es256), "MALFORMED")
    case("claims that are a list", sign(b"[]"), "MALFORMED")
    case("claims that are no JSON", sign(b"{"), "MALFORMED")
    case("nested very deep", sign(access_claims(x=None), es256).split(".")[0] + "." + b64(b'{"a":' * 500 + b"1" + b"}" * 500)
         + "." + signature, "BAD_SIGNATURE")
    case("nested very deep and signed", sign(b'{"a":' * 500 + b"1" + b"}" * 500), "MALFORMED")
    case("oversized", sign(access_claims(x="x" * TOKEN_BYTES)), "MALFORMED")

    jkt = thumbprint(holder)
    x5t = b64(hashlib.sha256(certificate).digest())
    key, cert = {"jkt": jkt}, {"x5t#S256": x5t}
    by_key, by_cert = {"jkt": jkt}, {"certificate": base64.b64encode(certificate).decode()}
    bound = lambda cnf: sign(access_claims(cnf=cnf))
    case("bound to a key that was proven", bound(key), "OK", proof=by_key)
    case("bound to a certificate that was proven", bound(cert), "OK", proof=by_cert)
    case("not bound, though a key was proven", good, "OK", proof=by_key)
    case("bound to a key, nothing proven", bound(key), "PROOF_MISSING")
    case("bound to a certificate, nothing proven", bound(cert), "PROOF_MISSING")
    case("bound to a key, a certificate proven", bound(key), "PROOF_WRONG", proof=by_cert)
    case("bound to a certificate, a key proven", bound(cert), "PROOF_WRONG", proof=by_key)
    case("bound to another key", bound({"jkt": stranger.kid}), "PROOF_WRONG", proof=by_key)
    case("bound to another certificate", bound({"x5t#S256": stranger.kid}), "PROOF_WRONG", proof=by_cert)
    case("a key's thumbprint as a certificate's", bound({"x5t#S256": jkt}), "PROOF_WRONG", proof=by_key)
    case("bound to both", bound({**key, **cert}), "PROOF_WRONG", proof=by_key)
    case("bound in a way that is not known", bound({"kid": "x"}), "PROOF_WRONG", proof=by_key)
    case("bound to a key by value", bound({"jwk": holder.as_dict(private=False)}), "PROOF_WRONG", proof=by_key)
    case("bound to nothing", bound({}), "PROOF_WRONG")
    case("cnf as text", bound("x"), "BAD_CLAIM")
    case("cnf null", bound(None), "BAD_CLAIM")
    case("a thumbprint that is none", bound({"jkt": "x"}), "BAD_CLAIM", proof=by_key)

    svids = []

    def svid_case(name, token, expect, **more):
        svids.append({"name": f"SVID {name}", "profile": "svid", "token": token, "expect": expect, **more})

    def svid_of(key=svid, typ="JWT", header=None, **changes):
        return sign(svid_claims(**changes), key, typ=typ, **(header or {}))

    svid_case("as Dayfly mints it", svid_of(), "OK")
    svid_case("audience as text", svid_of(aud=AUDIENCE), "OK")
    svid_case("bound to a certificate", svid_of(cnf=cert), "OK", proof=by_cert)
    svid_case("bound, nothing proven", svid_of(cnf=cert), "PROOF_MISSING")
    svid_case("of typ JOSE", svid_of(typ="JOSE"), "WRONG_TYP")
    svid_case("without typ", svid_of(typ=GONE), "WRONG_TYP")
    svid_case("that is an access token", good, "WRONG_TYP")
    svid_case("that is an access token, by its typ", sign(access_claims(), typ="JWT"), "UNKNOWN_KEY")
    svid_case("by a key of access tokens", svid_of(es256), "UNKNOWN_KEY")
    svid_case("with an access token's claims", sign(access_claims(), svid, typ="JWT"), "BAD_CLAIM")
    svid_case("of another trust domain", svid_of(sub="spiffe://evil.example/ns/payments/sa/api"), "WRONG_ISSUER")
    svid_case("of a trust domain that begins like it",
              svid_of(sub=f"spiffe://{TRUST_DOMAIN}.evil.example/ns/payments/sa/api"), "WRONG_ISSUER")
    svid_case("whose sub is the trust domain", svid_of(sub=f"spiffe://{TRUST_DOMAIN}"), "BAD_CLAIM")
    svid_case("whose sub walks", svid_of(sub=f"spiffe://{TRUST_DOMAIN}/ns/../sa/api"), "BAD_CLAIM")
    svid_case("for two audiences", svid_of(aud=[AUDIENCE, "https://billing.example"]), "WRONG_AUDIENCE")
    svid_case("expired", svid_of(exp=NOW - 31), "EXPIRED")
    svid_case("without exp", svid_of(exp=GONE), "BAD_CLAIM")
    svid_case("of another scope", svid_of(scope="x"), "SCOPE_MISSING")
    return access + svids


def main():
    assert joserfc.__version__ == VERSION, f"joserfc {VERSION} is wanted, not {joserfc.__version__}"
    here = pathlib.Path(__file__)
    made = {
        "by": f"make.py with joserfc {VERSION}",
        "maker_sha256": hashlib.sha256(here.read_bytes()).hexdigest(),
        "now": NOW,
        "issuer": ISSUER,
        "trust_domain": TRUST_DOMAIN,
        "audience": AUDIENCE,
        "scope": SCOPE,
        "jwks": JWKS,
        "bundle": BUNDLE,
        "vectors": vectors(),
    }
    here.with_name("vectors.json").write_text(json.dumps(made, indent=1) + "\n")


main()
