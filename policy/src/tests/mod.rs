//! Policies and decisions against tables from AWS's documentation, and against a second reading of the rules.

mod decisions;
mod documented;
mod openings;
mod reference;
