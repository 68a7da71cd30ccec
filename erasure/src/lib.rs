//! Erasure coding of sealed chunks: systematic Reed-Solomon k+m, and 1+m copies by the same interface.
