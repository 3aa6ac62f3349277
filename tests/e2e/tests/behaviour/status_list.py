"""Reads a status list token by other code than Dayfly's: prints one character for each place, 0 or 1.

Standard input is JSON: `token` and `jwks`. zlib is Python's; the signature is verified by joserfc where that is installed
(the test verifies it by ring as well).
"""

import base64
import json
import sys
import zlib


def unpadded(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def main():
    asked = json.load(sys.stdin)
    header, payload, _ = asked["token"].split(".")
    header, claims = json.loads(unpadded(header)), json.loads(unpadded(payload))
    try:
        from joserfc import jws
        from joserfc.jwk import KeySet
    except ImportError:
        pass
    else:
        verified = jws.deserialize_compact(
            asked["token"].encode(), KeySet.import_key_set(asked["jwks"]), algorithms=["ES256"]
        )
        assert json.loads(verified.payload) == claims
    assert header["typ"] == "statuslist+jwt", header
    assert claims["status_list"]["bits"] == 1, claims
    bits = zlib.decompress(unpadded(claims["status_list"]["lst"]))
    print("".join(str(byte >> bit & 1) for byte in bits for bit in range(8)))


main()
