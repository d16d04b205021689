from urllib.parse import unquote

from mri_jax.showing import addresses

SVG = (
    b'<svg viewBox="0 0 10.123456 2">\n   <path d="M 0.12999, -3.5 L 12.3456e-05"/>\n'
    b'   <text x="1.2345">0.00312</text>\n</svg>'
)


def test_the_shapes_of_an_svg_keep_two_decimals_and_it_may_stand_in_a_list_of_sources():
    address = addresses.of_svg(SVG)
    assert not set(address.partition(",")[2]) & set(' ,"<>')
    assert unquote(address.partition(",")[2]) == (
        '<svg viewBox="0 0 10.12 2">\n<path d="M 0.12, -3.5 L 12.34e-05"/>\n'
        '<text x="1.23">0.00312</text>\n</svg>'
    )


def test_a_csv_is_given_back_whole():
    text = 'a,"b"\n1%,é & "x"\n'
    address = addresses.of_csv(text)
    assert '"' not in address
    assert unquote(address.partition(",")[2]) == text
