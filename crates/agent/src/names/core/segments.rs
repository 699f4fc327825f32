//! DNS messages on TCP.

use palisade_dns::{Ends, Step};
use palisade_nft::packet_queue::{QueuedPacket, Segment};

use super::{Core, Fate, Moment};

impl Core {
    /// Decides about a segment.
    pub(super) fn segment(&mut self, segment: &Segment<'_>, packet: &QueuedPacket, now: Moment) -> Fate {
        if packet.arrives { self.of_pod(segment, now) } else { self.of_server(segment, packet.id, now) }
    }

    /// A query passes in any case: policies decide about it. Its answer doesn't, if it could not be noted.
    fn of_pod(&mut self, segment: &Segment<'_>, now: Moment) -> Fate {
        let Some(pod) = self.pods.get(&segment.source.ip()).cloned() else { return Fate::Pass };
        let ends = Ends::tcp(segment.source, segment.destination);
        match self.connections.from_client(&pod, ends, &plain(segment), now.milliseconds) {
            Step::Pass => Fate::Pass,
            Step::Drop => Fate::Drop,
            Step::Reset => Fate::Reset(segment.to_reset()),
            Step::Messages(queries) => {
                let mut asked =
                    queries.iter().map(|query| self.exchanges.ask(&pod, ends, query, now.milliseconds));
                if asked.any(|asked| asked.is_err()) {
                    self.connections.refuse(&ends);
                }
                Fate::Pass
            }
        }
    }

    fn of_server(&mut self, segment: &Segment<'_>, packet: u32, now: Moment) -> Fate {
        if !self.pods.contains_key(&segment.destination.ip()) {
            return Fate::Pass;
        }
        let ends = Ends::tcp(segment.destination, segment.source);
        match self.connections.from_server(ends, &plain(segment), now.milliseconds) {
            Step::Pass => Fate::Pass,
            Step::Drop => Fate::Drop,
            Step::Reset => Fate::Reset(segment.to_reset()),
            Step::Messages(answers) => match self.learn_all(ends, &answers, now) {
                None => {
                    self.connections.refuse(&ends);
                    Fate::Reset(segment.to_reset())
                }
                Some(true) => {
                    self.connections.hold(ends, &plain(segment), packet);
                    self.hold()
                }
                Some(false) => Fate::Pass,
            },
        }
    }

    /// Learns from answers. Returns whether they have to wait; `None` if one is no answer to a query.
    fn learn_all(&mut self, ends: Ends, answers: &[Vec<u8>], now: Moment) -> Option<bool> {
        let mut has_to_wait = false;
        for answer in answers {
            match self.exchanges.answer(ends, answer, now.milliseconds) {
                Ok(Some((asked, answer))) => has_to_wait |= self.learn(&asked, &answer, now.seconds),
                Ok(None) | Err(_) => return None,
            }
        }
        Some(has_to_wait)
    }
}

fn plain<'a>(segment: &Segment<'a>) -> palisade_dns::Segment<'a> {
    let Segment { sequence, acknowledged, syn, fin, reset, payload, .. } = *segment;
    palisade_dns::Segment { sequence, acknowledged, syn, fin, reset, payload }
}
