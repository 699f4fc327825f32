//! The compiler: the same meaning as [`crate::reference`], as tables, incrementally.
