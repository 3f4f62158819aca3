//! The sums of an audit.
