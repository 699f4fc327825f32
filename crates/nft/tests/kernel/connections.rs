//! Listing connections: the result is the same with and without filters in the kernel, and filtered entries are not copied.

use std::{
    collections::{BTreeSet, VecDeque},
    io,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use libtest_mimic::Trial;
use nix::libc::EOPNOTSUPP;
use palisade_nft::{
    Kernel, NetlinkSocket, Transport,
    conntrack::{self, ConnectionCleaner, MAX_FILTERED},
};

use crate::{
    entries::{self, Entry},
    random::Random,
    sandbox::trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("few_addresses_and_many_list_the_same_connections", few_and_many),
        trial("few_entries_are_listed_at_once", few_entries),
        trial("filtered_connections_are_not_copied", copied),
        trial("a_kernel_without_filters_lists_everything", without_filters),
        trial("the_connections_of_an_address_are_deleted_and_no_others", deleted),
        trial("if_few_connections_exist_nothing_is_listed_for_an_address_without_any", looked_up_first),
    ]
}

/// Returns adjacent addresses of both families.
fn addresses() -> Vec<IpAddr> {
    let v4 = (1..=14u8).map(|n| IpAddr::from([10, 0, 0, n]));
    v4.chain((1..=14u16).map(|n| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, n]))).collect()
}

/// Returns connections among these addresses: some to the same address, some through a service, some behind source NAT.
fn random_entries(random: &mut Random, count: u16) -> Vec<Entry> {
    (0..count)
        .map(|n| {
            let all = addresses();
            let family = if random.chance(50) { &all[..14] } else { &all[14..] };
            let [opener, answerer, service, gateway] = [(); 4].map(|()| *random.pick(family));
            let mut entry = Entry::plain([opener, answerer], [10_000 + n, 80]);
            if random.chance(30) {
                // The addresses of service and gateway are no ends.
                entry.original.0[1] = service;
                entry.original.1[1] = 443;
                entry.reply.0[1] = gateway;
            }
            entry
        })
        .collect()
}

/// Returns the source ports, which are unique to each entry.
fn expected(entries: &[Entry], ends: &BTreeSet<IpAddr>) -> Vec<u16> {
    let has = |e: &&Entry| ends.contains(&e.original.0[0]) || ends.contains(&e.reply.0[0]);
    entries.iter().filter(has).map(|e| e.original.1[0]).collect()
}

fn listed(kernel: &mut Kernel, ends: &BTreeSet<IpAddr>) -> Vec<u16> {
    let mut out: Vec<u16> = conntrack::list(kernel, ends).unwrap().iter().map(|c| c.source_port).collect();
    out.sort_unstable();
    out
}

fn few_and_many() {
    let random = &mut Random::new(1);
    let entries = random_entries(random, 400);
    entries::create(entries.iter().copied());
    // The one lists all, because there are few entries. The other can't know that.
    for mut kernel in [Kernel::open().unwrap(), counted(false).0] {
        let addresses = addresses();
        for count in 0..=2 * MAX_FILTERED + 4 {
            for _ in 0..4 {
                let ends: BTreeSet<IpAddr> = (0..count).map(|_| *random.pick(&addresses)).collect();
                assert_eq!(listed(&mut kernel, &ends), expected(&entries, &ends), "{ends:?}");
            }
        }
        let stranger = BTreeSet::from([IpAddr::from([192, 0, 2, 1])]);
        assert_eq!(listed(&mut kernel, &stranger), [0u16; 0]);
    }
}

/// Of both families, at either end, with and without address translation.
fn deleted() {
    let addresses = addresses();
    let all: BTreeSet<IpAddr> = addresses.iter().copied().collect();
    let random = &mut Random::new(7);
    // The second one can't know how many entries there are, and lets the kernel filter. The third one's kernel can't filter.
    for mut kernel in [Kernel::open().unwrap(), counted(false).0, counted(true).0] {
        let mut left = random_entries(random, 400);
        entries::create(left.iter().copied());
        assert_eq!(conntrack::delete_older(&mut kernel, &BTreeSet::new()).unwrap(), 0);
        for count in 1..=MAX_FILTERED + 1 {
            let ends: BTreeSet<IpAddr> = (0..count).map(|_| *random.pick(&addresses)).collect();
            let gone = expected(&left, &ends);
            assert_eq!(conntrack::delete_older(&mut kernel, &ends).unwrap(), gone.len(), "{ends:?}");
            left.retain(|entry| !gone.contains(&entry.original.1[0]));
            assert_eq!(listed(&mut kernel, &all), expected(&left, &all), "{ends:?}");
            assert_eq!(conntrack::delete_older(&mut kernel, &ends).unwrap(), 0);
        }
        conntrack::delete_older(&mut kernel, &all).unwrap();
        assert_eq!(listed(&mut kernel, &all), [0u16; 0]);
    }
}

/// Of both families, at any end, also if entries come and go between two looks.
fn looked_up_first() {
    let (kernel, copied, _) = counting(Answers::Count);
    let mut cleaner = ConnectionCleaner::new(kernel);
    let stranger = BTreeSet::from([IpAddr::from([192, 0, 2, 1]), "fd00::ffff".parse().unwrap()]);
    assert_eq!(cleaner.delete_older(&stranger).unwrap(), 0, "no entries");
    let mut left = random_entries(&mut Random::new(9), 400);
    entries::create(left.iter().copied());
    assert_eq!(cleaner.delete_older(&stranger).unwrap(), 0);
    if has_exact_text() {
        assert_eq!(copied.load(Ordering::Relaxed), 0, "entries were listed");
    }
    for address in addresses() {
        let ends = BTreeSet::from([address]);
        let gone = expected(&left, &ends);
        assert_eq!(cleaner.delete_older(&ends).unwrap(), gone.len(), "{address}");
        left.retain(|entry| !gone.contains(&entry.original.1[0]));
    }
    assert!(left.is_empty(), "each entry has two of the addresses as ends");
    let entry = Entry::plain([addresses()[0], addresses()[1]], [10_000, 80]);
    entries::create([entry]);
    assert_eq!(cleaner.delete_older(&[addresses()[1]].into()).unwrap(), 1, "a new entry");
}

/// Whether the kernel's text about its entries is used.
fn has_exact_text() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    (numbers.next().unwrap(), numbers.next().unwrap()) >= (6, 18)
        && std::fs::File::open("/proc/thread-self/net/nf_conntrack").is_ok()
}

/// A namespace without entries, and one in which all entries are listed at once.
fn few_entries() {
    let pod = BTreeSet::from([addresses()[0], addresses()[20]]);
    let mut kernel = Kernel::open().unwrap();
    assert_eq!(listed(&mut kernel, &pod), [0u16; 0]);
    assert!(conntrack::list_with_revoked(&mut kernel, &pod).unwrap().is_empty());
    let entries = random_entries(&mut Random::new(4), 300);
    entries::create(entries.iter().copied());
    assert_eq!(listed(&mut kernel, &pod), expected(&entries, &pod), "both families");
    let with_revoked = conntrack::list_with_revoked(&mut kernel, &pod).unwrap();
    assert_eq!(with_revoked.len(), expected(&entries, &pod).len());
}

/// Which requests are answered.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answers {
    /// For the number of entries, and no filters.
    Count,
    /// With filters, but not for the number of entries.
    Filters,
    /// Neither.
    Neither,
}

/// The real kernel, with a transport that counts the listed entries and refuses some requests.
struct Counted {
    socket: NetlinkSocket,
    which: Answers,
    answers: VecDeque<Vec<u8>>,
    entries: Arc<AtomicUsize>,
    refusals: Arc<AtomicUsize>,
}

impl Transport for Counted {
    fn send(&mut self, datagram: &[u8]) -> io::Result<()> {
        // IPCTNL_MSG_CT_GET with an attribute: CTA_FILTER.
        let is_filtered = datagram[4..6] == 0x101u16.to_ne_bytes() && datagram.len() > 20;
        // IPCTNL_MSG_CT_GET_STATS.
        let is_count = datagram[4..6] == 0x105u16.to_ne_bytes();
        let is_refused =
            (is_count && self.which != Answers::Count) || (is_filtered && self.which != Answers::Filters);
        if !is_refused {
            return self.socket.send(datagram);
        }
        self.refusals.fetch_add(usize::from(is_filtered), Ordering::Relaxed);
        let mut answer = [36u32.to_ne_bytes(), [2, 0, 0, 0]].concat();
        answer.extend(&datagram[8..16]);
        answer.extend((-EOPNOTSUPP).to_ne_bytes());
        answer.extend(&datagram[..16]);
        self.answers.push_back(answer);
        Ok(())
    }

    fn receive(&mut self, wait: bool) -> io::Result<Vec<u8>> {
        if let Some(answer) = self.answers.pop_front() {
            return Ok(answer);
        }
        let datagram = self.socket.receive(wait)?;
        let mut rest = &datagram[..];
        while let Some(length) = rest.get(..4) {
            let length = u32::from_ne_bytes(length.try_into().unwrap()) as usize;
            // IPCTNL_MSG_CT_NEW: one entry.
            let is_entry = rest[4..6] == 0x100u16.to_ne_bytes();
            self.entries.fetch_add(usize::from(is_entry), Ordering::Relaxed);
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(datagram)
    }

    fn max_datagram(&self) -> usize {
        self.socket.max_datagram()
    }
}

/// Returns a kernel, the number of entries that it copies, and the number of filters that it refuses.
fn counted(refuses_filters: bool) -> (Kernel, Arc<AtomicUsize>, Arc<AtomicUsize>) {
    counting(if refuses_filters { Answers::Neither } else { Answers::Filters })
}

fn counting(which: Answers) -> (Kernel, Arc<AtomicUsize>, Arc<AtomicUsize>) {
    let (entries, refusals) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let transport = Counted {
        socket: NetlinkSocket::open().unwrap(),
        which,
        answers: VecDeque::new(),
        entries: entries.clone(),
        refusals: refusals.clone(),
    };
    (Kernel::with_transport(Box::new(transport)).unwrap(), entries, refusals)
}

fn copied() {
    let random = &mut Random::new(2);
    let entries = random_entries(random, 300);
    entries::create(entries.iter().copied());
    for end in &addresses()[..14] {
        let (mut kernel, copied, _) = counted(false);
        let ends = BTreeSet::from([*end]);
        let found = listed(&mut kernel, &ends);
        // An entry with the address at both ends is copied twice and listed once.
        let both = entries.iter().filter(|e| e.original.0[0] == *end && e.reply.0[0] == *end).count();
        assert_eq!(copied.load(Ordering::Relaxed), found.len() + both, "{end}");
    }
}

fn without_filters() {
    let random = &mut Random::new(3);
    let entries = random_entries(random, 100);
    entries::create(entries.iter().copied());
    let (mut kernel, copied, refusals) = counted(true);
    let ends = BTreeSet::from([addresses()[0], addresses()[1], addresses()[20]]);
    assert_eq!(listed(&mut kernel, &ends), expected(&entries, &ends));
    assert_eq!(
        (refusals.load(Ordering::Relaxed), copied.load(Ordering::Relaxed)),
        (1, 100),
        "then all entries"
    );
}
