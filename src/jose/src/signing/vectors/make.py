# Made the .jws files beside it, with joserfc 1.8.0 (PyPI): python3 make.py ../../import/keys_of_tests/rsa2048.pem RS256
import sys
from joserfc import jws
from joserfc.jws import JWSRegistry
from joserfc.jwk import RSAKey, OKPKey
pem=open(sys.argv[1]).read(); alg=sys.argv[2]
key=(RSAKey if alg=="RS256" else OKPKey).import_key(pem)
kid=key.thumbprint()
h={"alg":alg,"kid":kid,"typ":"at+jwt"}
reg=JWSRegistry(algorithms=[alg])
print(jws.serialize_compact(h, b'{"sub":"s"}', key, registry=reg))
