"""Here passwords are hashed cheaply: what the real hashes cost and hold is in test_passwords.py."""

import pytest

from tests.conftest import StartService
from tests.support.service import Account, Service


@pytest.fixture(scope="session")
def service(quick_service: Service) -> Service:
    return quick_service


@pytest.fixture
def start_service(start_quick_service: StartService) -> StartService:
    return start_quick_service


@pytest.fixture
def account(service: Service) -> Account:
    return service.sign_up()
