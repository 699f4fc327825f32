//! Messages on TCP: each follows its length in two bytes (RFC 1035, section 4.2.2).

use crate::MAX_MESSAGE;

/// Collects the bytes of one direction of a connection, and returns whole messages. Holds at most one message and what came
/// with it in one read.
#[derive(Debug, Default)]
pub struct Frames {
    buffer: Vec<u8>,
}

/// Why a connection can't be read any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadFrame {
    /// A message of no bytes.
    #[error("a message of length 0")]
    Empty,
    /// More was pushed than was taken: the caller must take all messages after each push.
    #[error("more than two messages are waiting")]
    Full,
}

impl Frames {
    /// Adds bytes that were read.
    ///
    /// # Errors
    /// [`BadFrame::Full`] if messages were not taken in between.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), BadFrame> {
        if self.buffer.len() + bytes.len() > 2 * (MAX_MESSAGE + 2) {
            return Err(BadFrame::Full);
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// Returns the next message; `None` if it isn't complete yet.
    ///
    /// # Errors
    /// [`BadFrame::Empty`]. The connection should be closed.
    pub fn next_message(&mut self) -> Result<Option<Vec<u8>>, BadFrame> {
        let Some((length, rest)) = self.buffer.split_first_chunk::<2>() else { return Ok(None) };
        let length = usize::from(u16::from_be_bytes(*length));
        if length == 0 {
            return Err(BadFrame::Empty);
        }
        let Some(message) = rest.get(..length).map(<[u8]>::to_vec) else { return Ok(None) };
        self.buffer.drain(..2 + length);
        if self.buffer.is_empty() {
            // A connection that is idle keeps no memory for its longest message.
            self.buffer = Vec::new();
        }
        Ok(Some(message))
    }

    /// Returns how many bytes wait for the rest of their message.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.buffer.len()
    }
}

/// Returns a message with its length before it; `None` if it is empty or longer than [`MAX_MESSAGE`].
#[must_use]
pub fn frame(message: &[u8]) -> Option<Vec<u8>> {
    let length = u16::try_from(message.len()).ok().filter(|length| *length > 0)?;
    Some([&length.to_be_bytes(), message].concat())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn messages_are_the_same_however_they_are_cut(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..8),
            cut in 1usize..9,
        ) {
            let stream: Vec<u8> = messages.iter().flat_map(|m| frame(m).unwrap()).collect();
            let (mut frames, mut read) = (Frames::default(), Vec::new());
            for part in stream.chunks(cut) {
                frames.push(part).unwrap();
                while let Some(message) = frames.next_message().unwrap() {
                    read.push(message);
                }
            }
            prop_assert_eq!(read, messages);
        }
    }

    #[test]
    fn empty_messages_and_a_full_buffer_are_errors() {
        let mut frames = Frames::default();
        frames.push(&[0, 0, 1]).unwrap();
        assert_eq!(frames.next_message(), Err(BadFrame::Empty));
        let mut frames = Frames::default();
        assert_eq!(frames.push(&vec![1; 2 * (MAX_MESSAGE + 2) + 1]), Err(BadFrame::Full));
        let longest = vec![7; MAX_MESSAGE];
        frames.push(&frame(&longest).unwrap()).unwrap();
        assert_eq!(frames.next_message().unwrap().unwrap(), longest);
        assert_eq!(frame(&[]).or(frame(&[0; MAX_MESSAGE + 1])), None);
    }
}
