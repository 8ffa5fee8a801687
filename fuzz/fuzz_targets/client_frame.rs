//! Bodies of a client's frames: no bytes make a reader panic, and what is read is a part of what was given.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pgstar_fuzz::wire::{self, client_tag, read};

fuzz_target!(|bytes: &[u8]| {
    let Ok(Some(header)) = wire::header(bytes) else {
        return;
    };
    let Ok(body) = wire::body(bytes) else {
        return;
    };
    match header.tag {
        client_tag::QUERY => {
            let _ = read::query(body).map(|sql| assert_eq!(sql.len() + 1, body.len()));
        }
        client_tag::PARSE => {
            let _ = read::parse(body).map(|parse| {
                let types = parse.parameter_types();
                let known = parse.name.len() + parse.sql.len() + 4 * types.len();
                assert_eq!(known + 4, body.len());
            });
        }
        client_tag::BIND => {
            let _ = read::bind(body).map(|bind| {
                assert!(body.ends_with(bind.tail));
                let names = bind.portal.len() + bind.statement.len() + 2;
                assert_eq!(names + bind.tail.len(), body.len());
            });
        }
        client_tag::DESCRIBE => {
            let _ = read::describe(body).map(|it| assert_eq!(it.name.len() + 2, body.len()));
        }
        client_tag::CLOSE => {
            let _ = read::close(body).map(|it| assert_eq!(it.name.len() + 2, body.len()));
        }
        client_tag::EXECUTE => {
            let _ = read::execute(body).map(|it| assert_eq!(it.portal.len() + 5, body.len()));
        }
        _ => {
            let _ = read::sync(body).map(|()| assert!(body.is_empty()));
        }
    }
});
