//! Whether what lies in the places of the archived segments is what belongs there, as far as it says so itself: by how each begins
//! and ends. Needs no key; with one it is also seen whether that opens it. What lies between is read by others.

use std::time::{Duration, Instant};

use super::super::container::{Expect, Identity, ObjectType, begins_and_ends, opens};
use super::super::damage::is_damage;
use super::super::parallel::side_by_side;
use super::super::repository::{MEND_CLUSTER, Repository, of_object};
use super::super::stamp::Stamp;
use super::name::{Segment, WalName};
use super::range::{Hole, Listing, reason};
use crate::error::{Error, Result};

/// What was seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Looked {
    /// Segments that cannot be used, those in a row that are so for one reason as one, by timeline and position.
    pub unusable: Vec<Hole>,
    /// How many were not looked at, because the time was over: the oldest.
    pub left: u64,
}

/// Looks at every segment of the listing, the newest first, for no longer than `patience`. Those that are `sure` to be what they were
/// when they were read are left out. Without an identity it is not asked whether a key opens them.
///
/// # Errors
/// The repository cannot be read.
pub fn look(
    repository: &Repository,
    identities: &[Identity],
    listing: &Listing,
    sure: &dyn Fn(Segment, u64, Option<Stamp>) -> bool,
    patience: Duration,
) -> Result<Looked> {
    let mut all: Vec<(Segment, u64)> = listing
        .segments()
        .filter(|(segment, bytes, stamp)| !sure(*segment, *bytes, *stamp))
        .map(|(segment, bytes, _)| (segment, bytes))
        .collect();
    all.reverse();
    let cluster = repository.cluster()?.map(|c| c.system_identifier);
    let began = Instant::now();
    let one = |(segment, bytes): &(Segment, u64)| -> Result<Option<(Segment, Option<String>)>> {
        if began.elapsed() > patience {
            return Ok(None);
        }
        let name = WalName::Segment(*segment).object();
        let expect = Expect { object: ObjectType::WalSegment, repository: repository.id(), name: &name };
        let seen = begins_and_ends(repository.store(), *bytes, &expect).and_then(|header| {
            let said = header.spec.system_identifier;
            if let Some(ours) = cluster.filter(|ours| said != 0 && said != *ours) {
                return Err(Error::check(format!("the object is of cluster {said}"))
                    .why(format!("the repository is for cluster {ours}"))
                    .hint(MEND_CLUSTER));
            }
            if identities.is_empty() { Ok(()) } else { opens(&header, identities) }
        });
        match seen {
            Ok(()) => Ok(Some((*segment, None))),
            Err(e) if is_damage(&e) => Ok(Some((*segment, Some(reason(&e))))),
            Err(e) => Err(of_object(e, &name)),
        }
    };
    let seen = side_by_side(repository.store().at_once(), &all, &one)?;
    let left = seen.iter().filter(|s| s.is_none()).count() as u64;
    let mut wrong: Vec<(Segment, String)> = seen.into_iter().flatten().filter_map(|(s, why)| Some((s, why?))).collect();
    wrong.sort_unstable();
    let size = listing.segment_size();
    let mut unusable: Vec<Hole> = Vec::new();
    for (segment, why) in wrong {
        let after =
            segment.number(size).checked_sub(1).map(|n| Segment::from_number(segment.timeline, n, size).to_string());
        match unusable.last_mut().filter(|h| Some(&h.last) == after.as_ref() && h.why == why) {
            Some(hole) => hole.last = segment.to_string(),
            None => unusable.push(Hole { first: segment.to_string(), last: segment.to_string(), next: None, why }),
        }
    }
    Ok(Looked { unusable, left })
}
