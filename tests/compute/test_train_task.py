"""What the training task makes of what an architecture says that it did."""

from __future__ import annotations

import pytest

from aiida_perovmlip.compute.contract import JobError, Status
from aiida_perovmlip.compute.tasks.train import refuse_ignored_settings

SETTINGS = {'width': 8, 'rate': 0.1, 'offset': None}


def test_equal_settings_pass_also_where_the_unsaid_ones_are_not_told():
    refuse_ignored_settings(SETTINGS, ['width'], {'width': 8})
    refuse_ignored_settings(SETTINGS, ['rate'], {'rate': 0.1 + 1e-12})


def test_a_setting_that_was_said_and_of_which_nothing_is_told_is_an_error():
    with pytest.raises(JobError, match='It is not known whether `rate` had an effect') as caught:
        refuse_ignored_settings(SETTINGS, ['width', 'rate'], {'width': 8})
    assert caught.value.status is Status.SETTINGS_IGNORED


def test_a_default_that_was_not_followed_is_an_error_without_a_parent_alone():
    with pytest.raises(JobError, match='`width`: asked 8, done 16'):
        refuse_ignored_settings(SETTINGS, [], {'width': 16})
    refuse_ignored_settings(SETTINGS, [], {'width': 16}, has_parent=True)
    with pytest.raises(JobError, match='`width`: asked 8, done 16'):
        refuse_ignored_settings(SETTINGS, ['width'], {'width': 16}, has_parent=True)


def test_none_leaves_the_choice_to_the_architecture():
    refuse_ignored_settings(SETTINGS, ['offset'], {'offset': 3.0})
    refuse_ignored_settings(SETTINGS, ['offset'], {})
