"""Tests that the usual run leaves to the campaign: they repeat others, or take long.

Those of the contract are mostly of MongoDB, and of Redis with MongoDB: a step takes several times as long
there as on Redis. What runs is chosen by names alone: it is the same each time.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable

import pytest

from tests.crashes.contract import CrashContract

_HISTORIES = {
    "test_a_random_history_goes_as_it_goes_in_memory": 4,
    "test_totals_and_queues_are_right_after_a_random_history": 2,
}
"""Tests whose variants are seeds, and how many of them run."""
_COUNTS = "test_the_numbers_of_a_count_that_goes_on_from_its_cursor_add_up"
"""A test of many variants, of which about a third run on each broker."""
_SAME_CODE = frozenset(
    {
        "test_a_metric_that_cannot_be_added_up_is_refused_with_its_whole_call",
        "test_a_queue_may_have_any_name",
        "test_any_json_value_comes_back",
        "test_any_name_can_be_a_search_key",
        "test_any_text_can_be_a_parameter",
        "test_any_text_can_be_the_name_of_a_queue_and_a_path",
        "test_any_text_is_a_key_until_record",
        "test_any_text_is_the_name_of_a_queue",
        "test_find_by_params_of_any_name",
        "test_keys_and_values_survive_a_claim_and_a_result",
        "test_names_and_tags_are_any_text",
        "test_names_are_only_names",
        "test_other_keys_are_other_keys",
        "test_params_come_back_as_they_were",
        _COUNTS,
    }
)
"""Tests whose variants are values that go the same way through the code. About a third of them run."""
_LEFT = frozenset(
    {
        "test_a_backlog_of_many_schedules_is_made_in_bounded_steps",
        "test_a_bulk_requeue_refuses_full_jobs_and_goes_on",
        "test_a_config_file_that_closes_the_streams_hides_no_answer",
        "test_a_dashboard_that_cannot_start_is_left_out",
        "test_a_demo_goes_on_when_the_broker_is_back",
        "test_a_demo_that_is_stopped_while_the_broker_is_away_says_how_to_go_on",
        "test_a_fork_server_that_stands_still_is_replaced",
        "test_a_handler_that_blocks_in_the_loop_that_claims_is_interrupted",
        "test_a_handler_that_blocks_keeps_no_more_than_one_job_from_logging",
        "test_a_handler_that_blocks_when_the_worker_ends_is_not_waited_for",
        "test_a_job_that_holds_the_gil_again_and_again_has_a_timeout",
        "test_a_killed_demo_leaves_no_dashboard",
        "test_a_killed_worker_is_dead_and_a_worker_that_stopped_is_not",
        "test_a_kind_that_cannot_be_settled_does_not_repeat_another",
        "test_a_lost_claim_is_counted_once",
        "test_a_node_that_is_away_stops_its_own_prefix_alone_until_it_is_back",
        "test_a_parent_gives_up_if_no_worker_can_start",
        "test_a_paused_demo_queue_is_an_error_that_says_what_to_do",
        "test_a_report_has_the_oldest_jobs_with_their_stacks_and_the_machine",
        "test_a_request_that_the_stop_cuts_off_is_answered_and_logs_no_traceback",
        "test_a_server_that_refuses_some_workers_gets_them_later",
        "test_a_suspect_gets_its_turn_though_its_queue_never_runs_dry",
        "test_a_task_that_closes_standard_output_does_not_lose_its_result",
        "test_a_user_of_redis_who_may_not_write_is_a_finding_beside_those_of_both_servers",
        "test_a_wait_for_a_tree_of_raw_queues_is_bounded",
        "test_a_worker_fails_the_large_job_that_retries_with_a_long_traceback",
        "test_a_worker_is_given_up_for_a_job_that_ignores_that_its_claim_is_lost",
        "test_a_worker_never_waits_longer_than_promised_before_it_tries_again",
        "test_a_worker_shows_its_stacks_and_drains",
        "test_a_worker_that_cannot_be_replaced_is_tried_again_while_others_work",
        "test_a_worker_that_gives_itself_up_is_replaced",
        "test_a_worker_that_is_given_up_exits_though_it_cannot_say_so",
        "test_a_worker_that_is_given_up_exits_though_its_last_calls_break",
        "test_a_worker_that_its_first_job_suspends_beside_others_is_killed",
        "test_a_worker_that_may_open_no_more_files_stops_and_stores_all_outcomes",
        "test_a_worker_that_reached_max_memory_is_replaced",
        "test_a_worker_that_reached_max_time_is_replaced",
        "test_a_worker_whose_gil_is_held_past_the_limit_is_killed_and_its_attempt_lost",
        "test_an_emptied_queue_gets_all_its_jobs_back_and_starts_none_twice",
        "test_an_observer_that_hangs_keeps_no_job_from_its_outcome",
        "test_an_outage_that_renewals_meet_is_logged_once_and_its_end_too",
        "test_an_outcome_that_cannot_be_stored_is_a_failure_in_the_last_resort_too",
        "test_an_outcome_that_cannot_be_stored_keeps_no_other_waiting",
        "test_check_finds_a_variable_of_gevent_with_which_no_worker_starts",
        "test_check_fix_says_what_was_lost",
        "test_clients_that_send_nothing_are_disconnected",
        "test_data_come_out_of_json_unharmed_in_every_encoding",
        "test_each_attempt_that_ends_with_a_worker_that_is_given_up_has_its_line",
        "test_each_worker_has_a_name_and_a_report",
        "test_fires_are_made_within_a_tenth_of_a_second",
        "test_five_schedulers_make_one_job_of_each_of_a_thousand_fires",
        "test_jobs_have_their_places_again_after_the_queue_was_emptied",
        "test_jobs_that_wait_for_each_other_say_what_to_do",
        "test_jobs_with_the_same_timeout_report_seldom",
        "test_many_lost_replies_lose_nothing_and_each_repeat_follows_a_lost_claim",
        "test_names_with_spaces_and_commas_are_quoted_in_lists",
        "test_no_file_hides_a_module_from_the_dashboard",
        "test_no_file_hides_a_module_from_workers_with_a_parent",
        "test_on_a_terminal_it_goes_on_until_ctrl_c",
        "test_one_outcome_that_cannot_be_stored_fails_alone",
        "test_one_outcome_with_an_error_of_the_system_fails_alone",
        "test_only_a_running_job_has_a_stack",
        "test_repairs_beside_running_workers_repeat_nothing",
        "test_repairs_say_how_many",
        "test_run_with_an_idempotency_key_queues_one_job_and_prints_its_id_again",
        "test_settings_for_other_jobs_do_not_concern_those_of_the_demo",
        "test_sigint_to_all_processes_does_not_count_twice",
        "test_stars_are_no_secret_of_a_new_job",
        "test_the_calls_of_running_jobs_are_reported",
        "test_the_end_of_the_fork_server_does_not_count_against_its_jobs",
        "test_the_help_is_the_same_where_python_removes_docstrings",
        "test_the_largest_job_is_lost_ten_times_and_fails",
        "test_the_log_tells_an_outage_once_and_its_end_once",
        "test_the_port_answers_while_a_job_blocks_the_hub",
        "test_the_rights_that_the_page_gives_a_user_of_redis_are_enough",
        "test_the_signal_of_a_rotated_log_does_no_harm_to_a_parent_and_a_scheduler",
        "test_the_stack_of_an_isolated_job_comes_while_another_job_blocks_the_hub",
        "test_the_stacks_of_a_worker_leave_out_its_own_greenlets",
        "test_the_time_of_a_handler_that_blocks_a_line_about_a_plugin_is_not_that_of_the_job",
        "test_the_time_of_a_job_does_not_contain_that_of_a_neighbour_that_computes",
        "test_the_time_of_a_job_does_not_contain_that_of_an_observer",
        "test_tls_to_a_cluster",
        "test_tls_to_sentinels_and_their_primary",
    }
)
"""Tests of whole processes that take several seconds each. Others of the same modules run."""
_ONE_VARIANT = frozenset(
    {
        "test_a_broker_that_is_away_is_told_within_two_seconds",
        "test_a_busy_loop_of_three_leases_runs_once",
        "test_a_call_for_a_task_that_the_waiting_import_has_not_made_yet_is_refused",
        "test_a_call_that_an_import_waits_for_uses_the_module_as_far_as_it_is",
        "test_a_death_is_noticed_though_a_task_takes_the_signals_of_children",
        "test_a_dry_run_counts_as_the_command_then_does",
        "test_a_handler_that_queues_jobs_neither_hangs_nor_fails_the_calls_of_the_program",
        "test_a_job_that_cannot_be_ended_is_stored_as_interrupted",
        "test_a_job_that_computes_in_a_greenlet_of_a_library_is_interrupted_alone",
        "test_a_job_that_failed_at_once_has_failed_though_a_handler_blocks",
        "test_a_job_that_holds_the_lock_of_logging_keeps_no_job_from_its_end",
        "test_a_job_that_kills_its_process_is_failed_and_its_neighbours_are_not",
        "test_a_job_that_was_lost_with_three_workers_waits_for_a_lease_and_runs",
        "test_a_job_that_was_lost_with_two_workers_does_not_wait",
        "test_a_killed_worker_slows_no_other_and_its_jobs_do_not_wait",
        "test_a_mistyped_url_does_not_show_its_password",
        "test_a_queued_job_is_named_on_standard_error_if_standard_output_does_not_take_its_id",
        "test_a_signal_at_any_moment_of_the_start_leaves_no_job_started",
        "test_a_signal_ends_a_command_whose_broker_does_not_answer",
        "test_a_solo_job_is_interrupted_when_its_time_is_over",
        "test_a_timeout_ends_code_that_keeps_the_processor_after_a_task_has_kept_threads_from_running",
        "test_a_timer_that_a_task_leaves_does_not_end_the_command",
        "test_a_width_of_no_terminal_counts_as_unknown",
        "test_a_worker_goes_on_after_a_task_has_changed_its_connections",
        "test_a_worker_that_does_not_respond_is_killed_when_the_parent_stops",
        "test_a_worker_that_does_not_respond_is_no_orphan_either",
        "test_a_worker_that_ends_is_replaced",
        "test_a_worker_that_is_gone_ends_the_request",
        "test_a_worker_that_stops_stores_its_outcomes_as_soon_as_the_server_is_back",
        "test_a_worker_whose_descriptor_a_task_closes_is_given_up_and_loses_no_job",
        "test_an_at_most_once_job_of_a_killed_worker_never_runs_again",
        "test_an_idle_worker_stops_though_its_server_is_frozen",
        "test_an_import_that_hangs_ends_with_the_timeout_of_its_job",
        "test_fifty_workers_do_not_come_back_at_the_same_moment",
        "test_it_serves_this_machine_until_it_is_stopped",
        "test_max_time_ends_a_worker_that_has_run_jobs",
        "test_mrq_scheduler_queues_jobs_until_it_is_told_to_stop",
        "test_narrow_terminals_show_ids_and_names_whole",
        "test_no_file_hides_a_module_from_a_worker",
        "test_no_import_begins_beside_another_before_that_takes_long",
        "test_odd_values_in_a_column_end_no_call_with_a_raw_error",
        "test_only_calls_of_the_job_count_and_its_log_keeps_the_totals",
        "test_outcomes_are_kept_while_the_broker_is_away_and_stored_when_it_is_back",
        "test_params_that_are_no_json_object_are_not_repeated_with_their_secrets",
        "test_several_workers_under_one_parent_make_one_job_of_each_fire",
        "test_sigterm_ends_a_worker_within_three_seconds_though_its_broker_is_away",
        "test_sigterm_ends_it",
        "test_standard_streams_that_loaded_code_closes_are_restored",
        "test_tasks_that_end_the_process_while_they_are_imported_are_an_error_in_one_line",
        "test_the_comparison_finds_what_differs",
        "test_the_end_of_a_worker_is_a_line_of_the_log_on_standard_error",
        "test_the_file_stays_young_while_the_broker_is_away",
        "test_the_interrupt_of_a_job_that_another_job_raises_is_a_failure_of_the_other",
        "test_the_number_comes_from_flags_environment_and_config_file",
        "test_the_time_of_a_job_contains_that_of_its_greenlets",
        "test_the_time_of_a_job_does_not_contain_that_of_a_neighbour_that_holds_the_gil",
        "test_the_timeout_of_a_job_ends_its_wait_for_a_locked_file",
        "test_what_a_job_left_behind_does_not_keep_the_process",
        "test_wrong_definitions_are_refused_at_the_start",
    }
)
"""Tests of processes that take seconds, of which one variant runs. The name decides which."""
_A_THIRD = frozenset(
    {
        "test_a_call_at_the_end_of_the_interpreter_ends_soon_and_says_why_it_fails",
        "test_a_child_that_another_greenlet_forks_ends_as_in_a_worker",
        "test_a_child_that_loaded_code_forks_ends_where_the_code_raises",
        "test_a_claim_and_a_settle",
        "test_a_client_names_the_file_that_hides_a_module",
        "test_a_client_names_the_module_that_other_code_has_taken_away",
        "test_a_client_passes_on_what_an_import_hook_raises",
        "test_a_client_without_free_descriptors_says_so_and_works_once_there_are_some",
        "test_a_clock_that_steps_an_hour_repeats_no_fire",
        "test_a_command_imports_no_other_command",
        "test_a_command_names_the_file_that_hides_a_module_of_its_path",
        "test_a_command_with_few_descriptors_says_so_or_works",
        "test_a_config_file_that_breaks_imports_is_named",
        "test_a_damaged_job_that_has_ended_is_deleted_when_it_expires",
        "test_a_damaged_structure_stops_no_reading",
        "test_a_duration_is_a_number_of_seconds_or_words",
        "test_a_greenlet_that_the_config_file_waits_for_is_told_so_where_the_program_uses_gevent",
        "test_a_hook_that_calls_the_client_amid_its_imports_gets_an_error",
        "test_a_job_is_queued_whatever_the_objects_of_its_module_raise",
        "test_a_job_that_is_damaged_while_it_runs_fails_after_a_lost_claim",
        "test_a_lost_claim_of_a_damaged_job_stops_no_other_claim",
        "test_a_malformed_id_is_refused_and_nothing_is_changed",
        "test_a_page_whose_name_leads_here_neither_reads_nor_acts",
        "test_a_path_that_names_no_file_keeps_a_worker_from_starting",
        "test_a_path_without_a_module_or_a_name_is_a_usage_error",
        "test_a_pause_that_makes_no_sense_is_refused",
        "test_a_plugin_is_told_that_the_client_is_not_ready",
        "test_a_plugin_that_refuses_a_job_is_named",
        "test_a_probe_tells_the_living_from_the_dead",
        "test_a_process_whose_descriptors_other_files_have_got_is_refused_and_writes_into_none",
        "test_a_rare_match_costs_as_much_among_many_jobs_as_among_few",
        "test_a_requeued_job_runs_with_its_params_or_fails_again",
        "test_a_role_below_that_of_a_route_is_refused",
        "test_a_schedule_that_makes_no_sense_is_refused",
        "test_a_search_reads_the_smallest_of_the_indexes_that_serve_it",
        "test_a_search_whose_time_is_over_goes_on_at_its_cursor",
        "test_a_signal_writes_nothing_to_a_file_after_a_task_has_left_its_wakeup_descriptor",
        "test_a_success_that_has_to_be_looked_at_is_not_written",
        "test_a_thing_that_does_not_exist_is_an_error_with_exit_code_1",
        "test_a_thread_that_a_plugin_waits_for_is_told_that_the_plugin_asked",
        "test_a_thread_that_the_config_file_of_a_command_waits_for_is_told_so",
        "test_a_thread_that_the_config_file_waits_for_is_told_so",
        "test_a_timer_that_a_job_has_left_ends_neither_the_worker_nor_another_job",
        "test_a_value_beyond_the_limit_is_refused_before_it_is_walked_through",
        "test_a_worker_leaves_while_its_config_file_is_loaded",
        "test_a_wrong_address_is_told_in_a_sentence_and_within_seconds",
        "test_a_wrong_bulk_action_says_what_is_wrong",
        "test_a_wrong_setting_is_one_sentence_and_exit_code_2",
        "test_after_any_history_slots_and_parked_jobs_are_what_a_recount_gives",
        "test_after_three_days_off",
        "test_an_action_is_audited_and_logged",
        "test_an_action_refuses_strangers_other_sites_and_lower_roles",
        "test_an_answer_of_another_form_is_an_error_of_the_broker",
        "test_an_empty_filter_is_refused_and_changes_nothing",
        "test_an_empty_name_is_refused",
        "test_an_empty_name_is_refused_as_a_wrong_argument",
        "test_an_exception_whose_attributes_raise_is_told_without_a_traceback",
        "test_an_index_that_is_missing_is_named_and_made",
        "test_an_object_of_an_earlier_import_of_mrq_is_told_apart",
        "test_another_machine_needs_a_login",
        "test_check_finds_settings_with_which_no_worker_or_dashboard_starts",
        "test_code_that_ends_the_process_while_it_is_loaded_is_an_error_in_one_line",
        "test_ctrl_c_after_the_work_keeps_its_exit_code",
        "test_each_form_has_no_dangers_and_leads_to_its_action",
        "test_encoded_params_are_checked",
        "test_errors_name_the_flags",
        "test_every_command_ends_with_the_code_of_its_work",
        "test_every_command_refuses_a_config_file_that_configures_the_process",
        "test_expressions_that_follow_the_wall_clock_fire_as_the_oracle_says",
        "test_greenlets_that_come_first_together_get_one_client",
        "test_hostile_addresses_are_answered_with_text",
        "test_hostile_text_is_shown_as_text",
        "test_jobs_print_after_another_has_opened_a_standard_descriptor_as_its_stream",
        "test_json_that_names_a_key_twice_is_a_usage_error",
        "test_no_request_breaks_the_api",
        "test_no_route_answers_a_stranger",
        "test_odd_arguments_are_errors_in_one_line",
        "test_odd_names_are_names",
        "test_on_a_terminal_changes_by_filter_are_confirmed",
        "test_other_ends_exit_with_1_and_a_sentence",
        "test_other_values_are_refused_clearly",
        "test_sigterm_stops_a_worker_whose_jobs_take_it",
        "test_the_config_file_is_told_that_it_is_not_loaded_yet",
        "test_the_error_of_a_command_names_the_plugin_that_asked_once",
        "test_the_examples_of_a_page_do_what_it_says",
        "test_the_first_call_of_a_program_may_be_made_within_logging",
        "test_the_jobs_behind_a_damaged_job_are_claimed",
        "test_the_next_call_works_after_an_interrupt_within_the_imports_of_a_call",
        "test_the_outcome_of_a_job_that_is_damaged_while_it_runs_is_accepted",
        "test_the_slot_of_a_lost_job_is_taken_once",
        "test_the_way_of_fifty_jobs_takes_seven_commands",
        "test_what_ends_another_greenlet_does_not_end_the_task",
        "test_what_makes_no_sense_is_refused",
        "test_what_plugins_and_the_config_file_print_does_not_spoil_json",
        "test_what_the_config_file_prints_is_not_in_the_output_of_a_command",
        "test_whichever_reply_is_lost_what_was_written_is_written_once",
    }
)
"""Tests of many variants that take long together, most of which start a process. About a third of them
run."""
_LONG = frozenset(
    {
        "TestComposedOfMemory::test_all_jobs_of_ten_thousand_subqueues_are_found_in_bounded_calls",
        "TestEmbeddedBroker::test_all_jobs_of_ten_thousand_subqueues_are_found_in_bounded_calls",
        "TestMemoryBroker::test_all_jobs_of_ten_thousand_subqueues_are_found_in_bounded_calls",
        "TestMongoBroker::test_all_jobs_of_ten_thousand_subqueues_are_found_in_bounded_calls",
        "TestMongoBroker::test_ten_thousand_jobs_are_enqueued_claimed_and_settled_in_order",
        "TestRedisAndMongo::test_all_jobs_of_ten_thousand_subqueues_are_found_in_bounded_calls",
        "TestMongoBroker::test_eight_processes_never_share_a_live_claim",
        "TestRedisAndMongo::test_eight_processes_never_share_a_live_claim",
        "TestRedisAndMongo::test_ten_thousand_jobs_are_enqueued_claimed_and_settled_in_order",
    }
)
"""Tests that take these brokers seconds, and the others less."""
_ON_PAIR = 2
"""The number of variants of a test on the pair: the composition tells statuses and kinds of queues apart in
few places, and all variants run on it with both halves in memory."""


def leave_to_campaign(items: Iterable[pytest.Item]) -> None:
    """Marks what does not run."""
    earlier: dict[str, int] = {}
    variants: dict[str, list[pytest.Function]] = {}
    for item in items:
        if isinstance(item, pytest.Function) and item.originalname in _LEFT:
            item.add_marker(pytest.mark.campaign)
            continue
        if isinstance(item, pytest.Function) and item.originalname in _ONE_VARIANT | _A_THIRD:
            if item.get_closest_marker("campaign") is None:
                variants.setdefault(item.originalname, []).append(item)
            continue
        if not isinstance(item, pytest.Function) or item.cls is None:
            continue
        test = f"{item.cls.__name__}::{item.originalname}"
        number = earlier[test] = earlier.get(test, -1) + 1
        if test in _LONG or not _runs(item, number):
            item.add_marker(pytest.mark.campaign)
    for name, same in variants.items():
        chosen = (zlib.crc32(name.encode()) >> 22) % len(same)
        for number, item in enumerate(same):
            if number != chosen and (name in _ONE_VARIANT or not _in_third(item.name)):
                item.add_marker(pytest.mark.campaign)


def _runs(item: pytest.Function, number: int) -> bool:
    """Whether the variant of this number runs."""
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    if issubclass(item.cls, CrashContract) and "story" in parameters:
        return bool(item.cls.is_told(item.originalname, parameters["story"]))
    kind = item.cls.__name__
    if kind not in ("TestMongoBroker", "TestRedisAndMongo"):
        return number == 0 or item.originalname != _COUNTS or _in_third(item.name)
    is_pair = kind == "TestRedisAndMongo"
    if item.originalname in _HISTORIES:
        return number < _HISTORIES[item.originalname]
    if is_pair:
        return number < _ON_PAIR
    return number == 0 or item.originalname not in _SAME_CODE or _in_third(item.name)


def _in_third(name: str) -> bool:
    """Whether the name is one of about a third of all names."""
    return zlib.crc32(name.encode()) % 3 == 0
