//! NaNs and infinities in the bytes of tensors.

use burn::tensor::DType;

/// The index of the first element that is NaN or infinite, and its kind: `NaN`, `inf` or `-inf`.
///
/// `bytes` are little-endian elements of type `dtype`. Returns `None` if all elements are finite,
/// and for every dtype other than F64, F32, Flex32, F16 and BF16, quantized ones included.
pub fn first_non_finite(bytes: &[u8], dtype: DType) -> Option<(usize, &'static str)> {
    // The bits of the exponent. All of them are 1 in a NaN or an infinity, and in no other number.
    let (width, exponent): (usize, u64) = match dtype {
        DType::F64 => (8, 0x7ff << 52),
        DType::F32 | DType::Flex32 => (4, 0xff << 23),
        DType::F16 => (2, 0x1f << 10),
        DType::BF16 => (2, 0xff << 7),
        _ => return None,
    };
    let mut words = bytes.chunks_exact(width).map(|bytes| {
        let mut word = [0; 8];
        word[..width].copy_from_slice(bytes);
        u64::from_le_bytes(word)
    });
    let (index, word) = words.by_ref().enumerate().find(|(_, word)| word & exponent == exponent)?;
    let mantissa = (1 << exponent.trailing_zeros()) - 1;
    let what = match (word & mantissa, word >> (8 * width - 1)) {
        (0, 0) => "inf",
        (0, _) => "-inf",
        _ => "NaN",
    };
    Some((index, what))
}
