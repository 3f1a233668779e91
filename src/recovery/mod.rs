//! Point-in-time recovery, finding the moment, verification.
