//! Clients of hosted services.

pub mod supabase;

use std::sync::Once;

/// A builder of HTTP clients: our name, a TLS provider installed, no redirect followed: one may lead to another host, with what
/// was meant for the first, and a page that asks for a login is no answer.
pub fn http() -> reqwest::ClientBuilder {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        // An error only says that a provider is installed already.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
    reqwest::Client::builder()
        .user_agent(concat!("breakglass/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
}

/// The cause behind the causes: what the operating system said. Never the URL, which may hold credentials.
pub fn innermost(e: reqwest::Error) -> String {
    let e = e.without_url();
    let mut last: &dyn std::error::Error = &e;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}
