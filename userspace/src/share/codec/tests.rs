use super::*;
use crate::share::{Fourcc, Plane};

fn plane(buffer: u8, offset: u32, stride: u32) -> Plane {
    Plane {
        buffer,
        offset,
        stride,
    }
}

fn frame() -> Frame {
    Frame {
        width: 0x0102_0304,
        height: 0x0506_0708,
        fourcc: Fourcc::new(*b"NV12"),
        modifier: 0x1122_3344_5566_7788,
        planes: vec![plane(1, 0x090a_0b0c, 0x0d0e_0f10), plane(0, 0, 1)],
    }
}

fn contents() -> Contents<'static> {
    Contents {
        sequence: 0x0203_0405_0607_0809,
        sizes: vec![0x1000, 0x0102_0304_0506_0708].into(),
        frames: vec![frame()].into(),
        payload: b"xyz",
    }
}

fn message() -> Vec<u8> {
    encode(&contents()).unwrap()
}

/// The bytes as the tables in the module's documentation give them, written
/// out by hand.
#[test]
fn the_bytes_are_those_documented() {
    let mut expected = Vec::new();
    expected.extend(b"DMSF\x02\x00\x02\x00");
    expected.extend([139, 0, 0, 0, 3, 0, 0, 0]);
    expected.extend([1, 0, 0, 0, 0, 0, 0, 0]);
    expected.extend([9, 8, 7, 6, 5, 4, 3, 2]);
    expected.extend([0, 0x10, 0, 0, 0, 0, 0, 0]);
    expected.extend([8, 7, 6, 5, 4, 3, 2, 1]);
    expected.extend([4, 3, 2, 1, 8, 7, 6, 5]);
    expected.extend(b"NV12\x02\0\0\0");
    expected.extend([0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11]);
    expected.extend([
        0xc, 0xb, 0xa, 9, 0x10, 0xf, 0xe, 0xd, 1, 0, 0, 0, 0, 0, 0, 0,
    ]);
    expected.extend([0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    expected.extend([0; 32]);
    expected.extend(b"xyz");
    assert_eq!(message(), expected);
    assert_eq!(decode(&expected).unwrap(), contents());
}

#[test]
fn every_other_length_is_refused() {
    let mut long = message();
    let length = long.len();
    long.push(0);
    for len in 0..HEADER {
        assert_eq!(decode(&long[..len]), Err(CodecError::Short(len)));
    }
    let announced = u32::try_from(length).unwrap();
    for bytes in (HEADER..length).chain([length + 1]) {
        let cut = CodecError::Cut { announced, bytes };
        assert_eq!(decode(&long[..bytes]), Err(cut));
    }
}

/// Every byte matters: change one, and the message means something else or
/// is refused. None is read twice, and none is skipped.
#[test]
fn every_bit_matters() {
    let message = message();
    for byte in 0..message.len() {
        for bit in 0..8 {
            let mut changed = message.clone();
            changed[byte] ^= 1 << bit;
            if let Ok(contents) = decode(&changed) {
                assert_eq!(encode(&contents).unwrap(), changed);
            }
        }
    }
    let plane = 72;
    let reserved = (18..24)
        .chain(61..64)
        .chain(plane + 9..plane + 16)
        .chain(plane + 25..plane + 64);
    for byte in reserved {
        let mut changed = message.clone();
        changed[byte] = 1;
        assert_eq!(decode(&changed), Err(CodecError::Reserved(byte)));
    }
}

/// A count that is changed alone does not make the length.
#[test]
fn counts_are_checked_when_read() {
    let with = |at: usize, field: &[u8]| {
        let mut changed = message();
        changed[at..][..field.len()].copy_from_slice(field);
        decode(&changed).unwrap_err()
    };
    let parts = |parts| CodecError::Parts { length: 139, parts };
    assert_eq!(with(0, b"d"), CodecError::Magic(*b"dMSF"));
    assert_eq!(with(4, &[1]), CodecError::Version(1));
    assert_eq!(with(6, &[3]), parts(147));
    assert_eq!(with(6, &[254]), CodecError::Handles(254));
    assert_eq!(with(6, &[0xff; 2]), CodecError::Handles(0xffff));
    assert_eq!(with(8, &[31]), CodecError::Length(31));
    assert_eq!(with(8, &[0xff; 4]), CodecError::Length(u32::MAX));
    assert_eq!(with(12, &[4]), parts(140));
    assert_eq!(with(12, &[1, 0, 1]), CodecError::Payload(0x1_0001));
    assert_eq!(with(16, &[0]), parts(51));
    assert_eq!(with(16, &[1, 4]), CodecError::Frames(1025));
    assert_eq!(with(24, &[0xff; 8]), CodecError::LastSequence);
    for planes in [0, 5, 255] {
        let error = CodecError::Planes {
            frame: 0,
            planes: planes.into(),
        };
        assert_eq!(with(60, &[planes]), error);
    }
    let missing = CodecError::Missing {
        frame: 0,
        plane: 1,
        buffer: 2,
        count: 2,
    };
    assert_eq!(with(96, &[2]), missing);
}

#[test]
fn counts_are_checked_when_written() {
    let refused = |contents| encode(&contents).unwrap_err();
    let sizes = vec![1; 254].into();
    let contents = contents();
    let many = Contents {
        sizes,
        ..contents.clone()
    };
    assert_eq!(refused(many), CodecError::Handles(254));
    let many = Contents {
        frames: vec![frame(); 1025].into(),
        ..contents.clone()
    };
    assert_eq!(refused(many), CodecError::Frames(1025));
    let long = vec![0; MAX_PAYLOAD + 1];
    let long = Contents {
        payload: &long,
        ..contents.clone()
    };
    assert_eq!(refused(long), CodecError::Payload(MAX_PAYLOAD + 1));
    let last = Contents {
        sequence: u64::MAX,
        ..contents.clone()
    };
    assert_eq!(refused(last), CodecError::LastSequence);
    let fewer = Contents {
        sizes: vec![1].into(),
        ..contents.clone()
    };
    let missing = CodecError::Missing {
        frame: 0,
        plane: 0,
        buffer: 1,
        count: 1,
    };
    assert_eq!(refused(fewer), missing);
    for planes in [0, 5] {
        let mut frame = frame();
        frame.planes.resize(planes, plane(0, 0, 0));
        let contents = Contents {
            frames: vec![frame].into(),
            ..contents.clone()
        };
        assert_eq!(refused(contents), CodecError::Planes { frame: 0, planes });
    }
}

#[test]
fn the_largest_message_passes() {
    let mut frame = frame();
    frame.planes = vec![plane(252, 1, 2); 4];
    let payload = vec![7; MAX_PAYLOAD];
    let largest = Contents {
        sequence: u64::MAX - 1,
        sizes: vec![u64::MAX; MAX_HANDLES].into(),
        frames: vec![frame; MAX_FRAMES].into(),
        payload: &payload,
    };
    let message = encode(&largest).unwrap();
    assert_eq!(message.len(), MAX_LENGTH);
    assert_eq!(decode(&message).unwrap(), largest);
}

/// Messages with a few bytes changed, and some put in or taken out: each is
/// refused, or says just what its bytes say.
#[test]
#[cfg_attr(miri, ignore = "too many for an interpreter")]
fn mutated_messages() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).unwrap()
    };
    let byte = |random: usize| u8::try_from(random).unwrap();
    let good = [
        message(),
        encode(&Contents::default()).unwrap(),
        encode(&Contents {
            frames: vec![frame(); 3].into(),
            ..contents()
        })
        .unwrap(),
    ];
    let mut read = 0;
    for _ in 0..200_000 {
        let mut message = good[random(good.len())].clone();
        for _ in 0..random(4) {
            let at = random(message.len());
            // Small numbers are more often right.
            let below = [4, 256][random(2)];
            message[at] = byte(random(below));
        }
        match random(8) {
            0 => {
                let len = random(message.len() + 1);
                message.truncate(len);
            }
            1 => message.extend(vec![0; random(100)]),
            2 => message.insert(random(message.len()), byte(random(256))),
            _ => {}
        }
        if random(2) == 0 && message.len() >= HEADER {
            let length = u32::try_from(message.len()).unwrap();
            message[8..12].copy_from_slice(&length.to_le_bytes());
        }
        if let Ok(contents) = decode(&message) {
            assert_eq!(encode(&contents).unwrap(), message);
            read += 1;
        }
    }
    // Enough of both, or nothing was tried.
    assert!((20_000..180_000).contains(&read), "{read}");
}
