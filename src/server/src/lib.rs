//! tonic and axum services, tower layers, TLS, configuration, wiring.
