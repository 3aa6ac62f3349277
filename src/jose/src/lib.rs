//! JWS, JWT and JWKS with ring behind jsonwebtoken, on our Clock.
