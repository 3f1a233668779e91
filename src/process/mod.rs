//! Children: spawn, groups, locks, cancel, bounded reading of output. The only room with unsafe code.
