//! A plan as an incident keeps it: `plan.json`, canonical bytes with a digest.

use sha2::{Digest as _, Sha256};

use crate::error::{Context, Error, Result};
use crate::model::{Digest, Plan};

/// SHA-256 of some bytes.
pub fn digest(bytes: &[u8]) -> Digest {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(64);
    for byte in Sha256::digest(bytes) {
        let _ = write!(out, "{byte:02x}");
    }
    Digest::new(out)
}

/// The bytes of `plan.json` and their digest. The same plan always gives the same bytes: fields in the model's order, maps
/// sorted, no floats.
///
/// # Errors
/// A state error when the plan cannot be serialised.
pub fn freeze(plan: &Plan) -> Result<(Vec<u8>, Digest)> {
    let mut bytes = serde_json::to_vec_pretty(plan).state(|| format!("cannot write plan.json of {:?}", plan.file))?;
    bytes.push(b'\n');
    let digest = digest(&bytes);
    Ok((bytes, digest))
}

/// Reads a `plan.json` back; with `expected`, only when it has that digest.
///
/// # Errors
/// A state error when the bytes do not match the digest or are not a plan.
pub fn thaw(bytes: &[u8], expected: Option<&Digest>) -> Result<Plan> {
    if let Some(expected) = expected {
        let found = digest(bytes);
        if found != *expected {
            return Err(Error::state("plan.json is not the one the journal names")
                .why(format!("its digest is {found}, the journal says {expected}"))
                .hint("Take plan.json from an export or another copy of the incident; the journal itself is not affected."));
        }
    }
    serde_json::from_slice(bytes).state(|| "cannot read plan.json".into())
}
