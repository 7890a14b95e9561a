"""Authentication data is found under many names, with every digit of a card number after it."""

from __future__ import annotations

import re

import pytest

from fraud_service.domain.errors import DeadLetterReason
from fraud_service.security.card_data import find_card_data, mask_bytes

pytestmark = pytest.mark.attack


@pytest.mark.parametrize(
    "text", ["pin=04317-0191-7518-1668", "cvv: 4078/8728/3876/86137", '["cvv:+74094","4925","9749"]']
)
def test_no_digit_of_a_number_after_authentication_data_is_left(text):
    left = mask_bytes(text.encode())
    assert b"[sensitive data]" in left
    assert not re.search(b"[0-9]", left)


@pytest.mark.parametrize(
    "text",
    [
        '{"cid":"1234"}',
        '{"cid":123}',
        '{"cvv":123.0}',
        '{"cvv":"123.00"}',
        '{"cvv":{"value":"123"}}',
        '{"cvv":["123"]}',
        '{"cvv":[1,2,3]}',
        '{"payment":{"card":{"securityCode":"1234"}}}',
        '{"name":"cvv","value":"123"}',
        '{"cardSecurityCode":123}',
        '{"card_security_code": "123"}',
        '{"cvn":"123"}',
        '{"cvv2":"123"}',
        '{"cav":"123"}',
        '{"cvnumber":"123"}',
        '{"userPin":"1234"}',
        '{"pinBlock":"0412AC89ABCDEF67"}',
        '{"track2Data":"4242424242424242D2512"}',
        '{"emv":"9F260812345678ABCDEF0012"}',
        '{"cryptogram":"12345678ABCDEF0012"}',
        '{"Prüfziffer":"123"}',
        '{"Kartenpr\\u00fcfnummer":"123"}',
        '{"KPN":"123"}',
        '{"codigo_de_seguridad":"123"}',
        '{"código de segurança":"123"}',
        '{"code de sécurité":"123"}',
        '{"spin":{"cvv":"123","number":"4567"}}',
        '{"soundtrack":{"pin":"1234","number":"999"}}',
        '{"name":"securityCode","value":"123"}',
        '{"cid":{"value":"1234"}}',
        '{"cardCode":"123"}',
        '{"pinCode":"1234"}',
        '{"iccRelatedData":"9F260812345678ABCDEF0012"}',
        '{"PVV":"1234"}',
        '{"icvv":"123"}',
        '{"cardValidationCode":"123"}',
        '<CVV xsi:type="xsd:string">123</CVV>',
        "&lt;pin&gt;1234&lt;/pin&gt;",
        "CVV is 123",
        "security code 123",
        "PIN is 1234",
        "Geheimzahl 1234",
        "CVV Nr. 123",
        "güvenlik kodu: 123",
        "код безопасности: 123",
        '{"note":"\\u043f\\u0438\\u043d-\\u043a\\u043e\\u0434: 1234"}',
        "安全码\uff1a123",
        "セキュリティコード\uff1a123",
        "رمز الأمان: 123",
        "cvv=123&amount=1",
        "<cvv>123</cvv>",
        "CVV 123",
        "\\u0063vv: 123",
        '{"cvv":"\uff11\uff12\uff13"}',
        "57134242424242424242D25122010000000000000F",
        "4242 4242 4242 4242=25121011000012300000",
    ],
)
def test_authentication_data_is_found_under_many_names(text):
    data = text.encode()
    assert find_card_data(data) is DeadLetterReason.SENSITIVE_DATA
    left = mask_bytes(data)
    assert find_card_data(left) is None
    assert not re.search(b"123(?!0)", left)
