//! The Palisade node agent: sources, the reconcile loop and its executor.
