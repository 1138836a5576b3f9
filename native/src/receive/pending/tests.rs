use super::*;

const WINDOW_NS: u64 = 50;

fn pending(record_bytes: usize, limit_bytes: usize) -> Pending<u32> {
    Pending::new(Limits { window_ns: WINDOW_NS, record_bytes, limit_bytes, retry_ns: 1000 }, 4)
}

fn add(pending: &mut Pending<u32>, parts: &[(u32, &[u8])], now_ns: u64, reply: u32) -> Result<(), (Refused, u32)> {
    pending.add(0, parts, Size { items: parts.len() as u64, rejected: 0, repaired: 0, bytes: 0 }, now_ns, reply)
}

fn values(taken: &Option<(u64, Vec<Append>)>) -> Vec<(u32, &[u8])> {
    taken.iter().flat_map(|(_, appends)| appends).map(|append| (append.partition, &append.value[..])).collect()
}

#[test]
fn a_window_becomes_one_record_per_partition() {
    let mut pending = pending(60, 1 << 20);
    add(&mut pending, &[(0, b"a"), (2, b"A")], 0, 1).unwrap();
    add(&mut pending, &[(0, b"b")], WINDOW_NS - 1, 2).unwrap();
    assert!(pending.take(WINDOW_NS - 1).is_none());
    assert_eq!(pending.due_ns(), Some(WINDOW_NS));
    let taken = pending.take(WINDOW_NS);
    assert_eq!(values(&taken), [(0, &b"ab"[..]), (2, b"A")]);
    let outcome = pending.finish(taken.unwrap().0, false, WINDOW_NS);
    assert_eq!(outcome.answers, [(2, true), (1, true)]); // a request is settled with the last of its records
    assert_eq!((outcome.accepted[0], pending.held_bytes()), (3, 0));
    assert!(pending.is_idle());
}

#[test]
fn a_busy_partition_waits_and_keeps_its_order() {
    let mut pending = pending(4, 1 << 20);
    for letter in [b"aaaa", b"bbbb", b"cccc", b"dddd", b"eeee"] {
        add(&mut pending, &[(0, letter)], 0, 0).unwrap();
    }
    add(&mut pending, &[(0, b"f")], 0, 0).unwrap();
    let first = pending.take(0);
    assert_eq!(values(&first).len(), RECORDS_PER_APPEND);
    assert!(pending.take(WINDOW_NS).is_none());
    assert_eq!(pending.due_ns(), None);
    pending.finish(first.unwrap().0, false, WINDOW_NS);
    assert_eq!(values(&pending.take(WINDOW_NS)), [(0, &b"eeee"[..]), (0, b"f")]);
}

#[test]
fn a_failed_append_refuses_whole_requests_and_counts_them_later() {
    let mut pending = pending(60, 1 << 20);
    add(&mut pending, &[(0, b"a"), (1, b"b")], 0, 7).unwrap();
    let (number, _) = pending.take(WINDOW_NS).unwrap();
    let outcome = pending.finish(number, true, 60);
    assert_eq!((outcome.answers, outcome.refused[0]), (vec![(7, false)], 2));
    assert_eq!(pending.due_ns(), Some(1060));
    let (_, appends) = pending.take(1060).unwrap();
    assert_eq!(appends, [Append { topic: 0, partition: 0, value: Vec::new(), rejected: 0, refused: 2, repaired: 0 }]);
    assert_eq!(pending.held_bytes(), 0);
}

#[test]
fn what_does_not_fit_is_refused_and_counted() {
    let mut pending = pending(60, 3 * REQUEST_OVERHEAD_BYTES);
    add(&mut pending, &[(0, b"a")], 0, 1).unwrap();
    add(&mut pending, &[(0, &[0; 10_000])], 0, 2).unwrap();
    let full = add(&mut pending, &[(0, b"a")], 0, 2);
    assert_eq!(full, Err((Refused::Full { held: 2 * REQUEST_OVERHEAD_BYTES + 10_001 }, 2)));
    assert_eq!(pending.refused(), [1, 0, 0]);
    let never = add(&mut pending, &[(0, &[0; 60_000])], 0, 3);
    assert_eq!(never, Err((Refused::TooLarge { needed: 60_000 + REQUEST_OVERHEAD_BYTES }, 3)));
    pending.close();
    assert_eq!(add(&mut pending, &[(0, b"b")], 0, 4), Err((Refused::Closed, 4)));
}
