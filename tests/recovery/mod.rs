//! Recovery: finding the moment, the reachable range, the shadow, verification, promotion, salvage.

mod locate;
mod promote;
mod shadow;
mod shop;
mod verify;
