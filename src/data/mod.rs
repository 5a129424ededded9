//! Data: the digits that ship with the crate, tables from CSV, batches.
