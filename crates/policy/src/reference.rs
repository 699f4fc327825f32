//! The reference: one flow decided as the specification reads.
