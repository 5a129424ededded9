use burn::{
    module::{Module, ParamId},
    nn::LinearConfig,
    tensor::{Bytes, DType},
};
use burn_pack::{Tensor, Writer};

use super::*;

fn cbor(value: &impl serde::Serialize) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).unwrap();
    bytes
}

#[test]
fn items_are_counted_at_any_depth() {
    assert_eq!(items(&[]), 0);
    assert_eq!(items(&cbor(&7)), 1);
    assert_eq!(items(&cbor(&[1_u64, 500, 70_000, u64::MAX])), 5);
    let text = "a text that is longer than its head can say, and 0x80 in it: \u{80}";
    for repeated in [1, 10, 2000] {
        let text = text.repeat(repeated);
        assert_eq!(items(&cbor(&(&text, 1.5, (&text, [true, false])))), 8);
    }
    // A list without an end, of texts in pieces: the list, each text, piece and break.
    let pieces = [0x9f, 0x7f, 0x62, b'a', b'b', 0x61, b'c', 0xff, 0x7f, 0xff, 0xff];
    assert_eq!(items(&pieces), 8);
    // Cut within a number or a text.
    for cut in [&[0x1b, 1, 2][..], &[0x78, 200, b'a'], &[0x62, b'a']] {
        assert_eq!(items(cut), 1);
    }
    assert_eq!(items(&[0x5b, 255, 255, 255, 255, 255, 255, 255, 255, 1, 1]), 1);
}

fn packed(tensors: impl Iterator<Item = (String, Vec<usize>)>) -> Vec<u8> {
    let tensors = tensors.map(|(name, shape)| {
        let bytes = Bytes::from_bytes_vec(vec![0; 4 * shape.iter().product::<usize>()]);
        Tensor::new(name, DType::F32, shape, Some(ParamId::new().val()), bytes)
    });
    Writer::new(tensors.collect()).into_bytes().unwrap().to_vec()
}

/// The least that real tensors come with: few numbers, short names.
#[test]
fn what_real_tensors_claim_is_never_refused() {
    for (count, shape) in [(1, vec![1]), (90_000, vec![1, 1]), (20_000, vec![1; 4])] {
        let bytes = packed((0..count).map(|index| (format!("layers.{index}.w"), shape.clone())));
        check(&bytes).unwrap();
    }
    let linear = LinearConfig::new(2, 3).init(&Default::default());
    check(&linear.into_record().into_bytes().unwrap()).unwrap();
}

#[test]
fn claims_without_tensors_are_refused() {
    let bytes = packed((0..90_000).map(|index| (index.to_string(), vec![0])));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("many.bpk");
    std::fs::write(&path, &bytes).unwrap();
    let length = bytes.len();
    let most = FREE + length as u64 / 24;
    let expected = format!("the header: expected at most {most} items of metadata, in {length}");
    let error = check(&bytes).unwrap_err().to_string();
    assert!(error.starts_with(&expected), "{error}");
    let Error::File { source, .. } = check_file(&path).unwrap_err() else { panic!() };
    assert_eq!(source.to_string(), error);
}

#[test]
fn what_is_no_header_is_left_to_the_parser() {
    for bytes in [&[][..], &[0; 9], &[255; 10], &[255; 99]] {
        check(bytes).unwrap();
    }
}
