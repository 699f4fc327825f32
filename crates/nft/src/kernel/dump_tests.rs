//! Listings over a socket that lost something: the kernel begins no second one before the first is read.

use std::collections::VecDeque;

use nix::libc::EBUSY;

use super::*;

/// A socket with one dump at a time, as the kernel has it.
#[derive(Default)]
struct Busy {
    /// What is still to come of the dump that runs, end included.
    running: VecDeque<Vec<u8>>,
    answers: VecDeque<io::Result<Vec<u8>>>,
    /// How many pieces of a listing come before some of it is lost; none: nothing is.
    lose_after: Option<usize>,
    /// Whether the kernel makes no more of the listing until something else was read.
    stalls: bool,
}

fn message(kind: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = (16 + payload.len() as u32).to_ne_bytes().to_vec();
    out.extend(kind.to_ne_bytes());
    out.extend(2u16.to_ne_bytes());
    out.extend(sequence.to_ne_bytes());
    out.extend([0; 4]);
    out.extend(payload);
    out
}

impl Transport for Busy {
    fn send(&mut self, request: &[u8]) -> io::Result<()> {
        let Some(request) = replies(request).next() else { return Ok(()) };
        let sequence = request.sequence;
        if request.kind & 0xff == GETGEN {
            let mut payload = vec![0; 4];
            payload.extend([8, 0, 1, 0, 0, 0, 0, 7]);
            self.answers.push_back(Ok(message((NFTABLES << 8) | 15, sequence, &payload)));
        } else if self.running.is_empty() {
            let piece = |n: u8| message(0xa0a, sequence, &[0, 0, 0, 0, n]);
            self.running = (0..4).map(piece).chain([message(DONE, sequence, &[0; 4])]).collect();
        } else {
            let mut payload = (-EBUSY).to_ne_bytes().to_vec();
            payload.extend([0; 16]);
            self.answers.push_back(Ok(message(ERROR, sequence, &payload)));
        }
        Ok(())
    }

    fn receive(&mut self, wait: bool) -> io::Result<Vec<u8>> {
        if let Some(answer) = self.answers.pop_front() {
            self.stalls = false;
            return answer;
        }
        if let Some(left) = &mut self.lose_after {
            if *left == 0 {
                self.lose_after = None;
                return Err(io::Error::from_raw_os_error(ENOBUFS));
            }
            *left -= 1;
        }
        if self.stalls && self.lose_after.is_none() {
            assert!(!wait, "this would wait until the socket's time is over");
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.running.pop_front().ok_or_else(|| io::ErrorKind::WouldBlock.into())
    }

    fn largest(&self) -> usize {
        1 << 16
    }
}

fn list(busy: Busy) -> Result<Vec<u8>, Error> {
    let mut kernel = Kernel::with_transport(Box::new(busy))?;
    kernel.dump(0xa0a, INET, &[], "things", |reply| reply.attributes().first().copied())
}

#[test]
fn what_was_lost_of_a_listing_is_listed_again_when_the_rest_was_read() {
    for lose_after in (0..5).map(Some).chain([None]) {
        let listed = list(Busy { lose_after, ..Busy::default() });
        assert_eq!(listed.unwrap(), [0, 1, 2, 3], "lost after {lose_after:?}");
    }
}

#[test]
fn a_listing_that_stands_still_goes_on_when_something_else_is_read() {
    let mut busy = Busy { lose_after: Some(2), ..Busy::default() };
    busy.stalls = true;
    // The answer to the first question wakes nobody up.
    busy.answers.clear();
    let mut kernel = Kernel::with_transport(Box::new(busy)).unwrap();
    let listed = kernel.dump(0xa0a, INET, &[], "things", |reply| reply.attributes().first().copied());
    assert_eq!(listed.unwrap(), [0, 1, 2, 3]);
}
