//! Clients of hosted services.
