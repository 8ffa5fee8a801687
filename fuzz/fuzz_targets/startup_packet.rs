//! The first packets of a connection: no bytes make the reader panic, and a packet is never larger than what came.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pgstar_fuzz::wire::{Opening, opening, proxy_header};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(Some((size, _))) = proxy_header(bytes) {
        assert!(size <= bytes.len());
    }
    let Ok(Some((size, opening))) = opening(bytes) else {
        return;
    };
    assert!(size <= bytes.len());
    if let Opening::Startup(startup) = opening {
        assert_eq!(startup.packet().as_ref(), &bytes[..size]);
        let last = startup
            .parameters()
            .last()
            .map(|(name, value)| (name.to_vec(), value.to_vec()));
        if let Some((name, value)) = last
            && let Ok(name) = std::str::from_utf8(&name)
        {
            assert_eq!(startup.parameter(name), Some(&value[..]));
        }
        let _ = startup.opens_a_session();
    }
});
