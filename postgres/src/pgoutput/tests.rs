//! Every kind of message, and bytes that are no message.

use super::*;

fn text(value: &'static str) -> Value {
    Value::Text(Bytes::from_static(value.as_bytes()))
}

fn samples() -> Vec<Vec<u8>> {
    let lsn = |low: u8| [0, 0, 0, 1, 0, 0, 0, low];
    let row = b"\0\x03t\0\0\0\x02abnu";
    vec![
        [b"B".as_slice(), &lsn(1), &[0; 8], &[0, 0, 0, 9]].concat(),
        [b"C\0".as_slice(), &lsn(1), &lsn(2), &[0; 8]].concat(),
        [b"O".as_slice(), &lsn(3), b"elsewhere\0"].concat(),
        b"R\0\0\0\x05public\0t\0d\0\x02\x01id\0\0\0\0\x17\xff\xff\xff\xff\0v\0\0\0\x04\x13\0\0\0\x0e".to_vec(),
        b"Y\0\0\0\x07s\0mood\0".to_vec(),
        [b"I\0\0\0\x05N".as_slice(), row].concat(),
        [b"U\0\0\0\x05K".as_slice(), row, b"N", row].concat(),
        [b"D\0\0\0\x05O".as_slice(), row].concat(),
        b"T\0\0\0\x02\x03\0\0\0\x05\0\0\0\x06".to_vec(),
        [b"M\x01".as_slice(), &lsn(4), b"pgstar\0\0\0\0\x02hi"].concat(),
        b"S\0\0\0\x09\x01".to_vec(),
        b"E".to_vec(),
        [b"c\0\0\0\x09\0".as_slice(), &lsn(1), &lsn(2), &[0; 8]].concat(),
        b"A\0\0\0\x09\0\0\0\x0a".to_vec(),
    ]
}

fn read_all(bytes: Vec<u8>, omitted: usize) -> Result<Message, DecodeError> {
    let (_, message) = read(Bytes::from(bytes), omitted, false)?;
    if let Message::Insert(change) | Message::Update(change) | Message::Delete(change) = &message {
        change.rows.read()?;
    }
    Ok(message)
}

#[test]
fn every_kind_of_message_is_read() {
    let read: Vec<Message> = samples()
        .into_iter()
        .map(|sample| read_all(sample, 0).unwrap())
        .collect();
    let at = |low: u64| Lsn(0x1_0000_0000 + low);
    assert_eq!(
        read[0],
        Message::Begin(Begin {
            commit: at(1),
            committed_at: 0,
            xid: Xid32(9)
        })
    );
    assert_eq!(
        read[1],
        Message::Commit(Commit {
            commit: at(1),
            end: at(2),
            committed_at: 0
        })
    );
    assert_eq!(
        read[2],
        Message::Origin {
            commit: at(3),
            name: "elsewhere".into()
        }
    );
    let Message::Relation(relation) = &read[3] else {
        panic!("{:?}", read[3])
    };
    assert_eq!(
        (
            relation.oid,
            relation.name.as_str(),
            relation.replica_identity
        ),
        (Oid(5), "t", b'd')
    );
    let columns: Vec<_> = relation
        .columns
        .iter()
        .map(|c| (c.is_key, c.name.as_str(), c.type_oid.0, c.typmod))
        .collect();
    assert_eq!(columns, [(true, "id", 23, -1), (false, "v", 1043, 14)]);
    assert_eq!(
        read[4],
        Message::Type {
            oid: Oid(7),
            schema: "s".into(),
            name: "mood".into()
        }
    );
    let row = Some(vec![text("ab"), Value::Null, Value::Unchanged]);
    let rows_of = |message: &Message| match message {
        Message::Insert(change) | Message::Update(change) | Message::Delete(change) => {
            assert_eq!(change.relation, Oid(5));
            change.rows.read().unwrap()
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(
        rows_of(&read[5]),
        Row {
            new: row.clone(),
            ..Row::default()
        }
    );
    assert_eq!(
        rows_of(&read[6]),
        Row {
            key: row.clone(),
            old: None,
            new: row.clone()
        }
    );
    assert_eq!(
        rows_of(&read[7]),
        Row {
            old: row,
            ..Row::default()
        }
    );
    let relations = vec![Oid(5), Oid(6)];
    assert_eq!(
        read[8],
        Message::Truncate {
            relations,
            cascade: true,
            restart_identity: true
        }
    );
    let content = Bytes::from_static(b"hi");
    let expected = Message::Message {
        is_transactional: true,
        at: at(4),
        prefix: "pgstar".into(),
        content,
    };
    assert_eq!(read[9], expected);
    let xid = Xid32(9);
    let is_first = true;
    assert_eq!(read[10], Message::StreamStart { xid, is_first });
    assert_eq!(read[11], Message::StreamStop);
    let Message::Commit(commit) = read[1] else {
        panic!("{:?}", read[1])
    };
    assert_eq!(read[12], Message::StreamCommit { xid, commit });
    let aborted = Xid32(10);
    assert_eq!(read[13], Message::StreamAbort { xid, aborted });
}

#[test]
fn in_a_streamed_block_messages_say_whose_they_are() {
    for sample in samples() {
        let whole = read_all(sample.clone(), 0).unwrap();
        let (kind, rest) = sample.split_first().unwrap();
        let names_its_transaction = b"IUDTRYM".contains(kind);
        let streamed = match names_its_transaction {
            true => [[*kind].as_slice(), &[0, 0, 0, 10], rest].concat(),
            false => sample.clone(),
        };
        let (xid, message) = pgoutput_read(streamed);
        assert_eq!(message, whole);
        assert_eq!(xid, names_its_transaction.then_some(Xid32(10)));
    }
}

fn pgoutput_read(bytes: Vec<u8>) -> (Option<Xid32>, Message) {
    read(Bytes::from(bytes), 0, true).unwrap()
}

#[test]
fn of_a_message_that_was_cut_the_relation_is_still_known() {
    let insert = samples().swap_remove(5);
    for kept in 6..insert.len() {
        let cut = read(
            Bytes::copy_from_slice(&insert[..kept]),
            insert.len() - kept,
            false,
        );
        let cut = cut.unwrap().1;
        let Message::Insert(change) = cut else {
            panic!("{cut:?}")
        };
        assert_eq!(change.relation, Oid(5));
        assert_eq!(change.rows.read(), Err(DecodeError::EndsEarly), "{kept}");
    }
    let commit = samples().swap_remove(1);
    assert_eq!(
        read(Bytes::from(commit), 1, false),
        Err(DecodeError::EndsEarly)
    );
}

#[test]
fn no_message_is_read_from_a_part_of_it_or_from_more() {
    for sample in samples() {
        for kept in 0..sample.len() {
            let outcome = read_all(sample[..kept].to_vec(), 0);
            // A change without any row is no change that PostgreSQL sends, but it says what changed;
            // an update may end after its first row.
            let is_whole = matches!(
                &outcome,
                Ok(Message::Insert(_) | Message::Update(_) | Message::Delete(_))
            );
            assert!(outcome.is_err() || is_whole, "{sample:?} {kept}");
        }
        let longer = [sample.as_slice(), &[0]].concat();
        assert!(read_all(longer, 0).is_err(), "{sample:?}");
    }
}

/// Marsaglia's xorshift, so that a failure can be repeated.
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[test]
fn whatever_the_bytes_are_reading_ends() {
    let mut state = 0x9E37_79B9_7F4A_7C15;
    let samples = samples();
    for _ in 0..200_000 {
        let mut bytes = samples[next(&mut state) as usize % samples.len()].clone();
        for _ in 0..next(&mut state) % 4 {
            let place = next(&mut state) as usize % bytes.len();
            bytes[place] = next(&mut state) as u8;
        }
        bytes.truncate(1 + next(&mut state) as usize % bytes.len());
        // A count that lies must not make us allocate: what is read is never more than what came.
        if let Ok(Message::Truncate { relations, .. }) =
            read_all(bytes.clone(), (state % 2) as usize)
        {
            assert!(relations.len() * 4 <= bytes.len());
        }
    }
}
