"""REST: the usage of the key that asks."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

from django.utils import timezone
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.callers import Caller
from accounts.usage import COUNTERS, UsageSum
from accounts.usage_reports import Step, UsagePoint, series


class _Period(NamedTuple):
    step: Step
    points: int


PERIODS = {"hour": _Period("minute", 60), "day": _Period("hour", 24), "month": _Period("day", 30)}


class CountsSerializer(serializers.Serializer[Any]):
    """Counts in the units of their names. Times are in milliseconds, and null where there was no reply."""

    def get_fields(self) -> dict[str, serializers.Field[Any, Any, Any, Any]]:
        """The counters of a usage row, and its percentiles."""
        return {
            **{name: serializers.IntegerField() for name in COUNTERS},
            "errors": serializers.DictField(child=serializers.IntegerField()),
            "ttft_p50_ms": serializers.FloatField(allow_null=True),
            "ttft_p95_ms": serializers.FloatField(allow_null=True),
        }


class StepSerializer(CountsSerializer):
    """The counts of one minute, hour or day."""

    def get_fields(self) -> dict[str, serializers.Field[Any, Any, Any, Any]]:
        """The counts, after the start of the step in UTC."""
        return {"start": serializers.DateTimeField(), **super().get_fields()}


class UsageSerializer(serializers.Serializer[Any]):
    """The counts of a period: the total, and every step without gaps."""

    key = serializers.CharField(help_text="the prefix of the key")
    period = serializers.ChoiceField(choices=list(PERIODS))
    step = serializers.ChoiceField(choices=["minute", "hour", "day"])
    start = serializers.DateTimeField()
    end = serializers.DateTimeField()
    total = CountsSerializer()
    steps = StepSerializer(many=True)


class _Query(serializers.Serializer[Any]):
    period = serializers.ChoiceField(choices=list(PERIODS), default="day")


class UsageView(APIView):
    """Usage of the key that asks. Use within the last second may not be counted yet."""

    @extend_schema(  # type: ignore[untyped-decorator]  # drf_spectacular is not followed
        operation_id="usage",
        responses=UsageSerializer,
        parameters=[
            OpenApiParameter(
                "period",
                enum=list(PERIODS),
                default="day",
                description="the last hour by minutes, the last day by hours, or the last 30 days by days",
            )
        ],
    )
    def get(self, request: Request) -> Response:
        """Returns the usage of this key up to now, the current step included."""
        query = _Query(data=request.query_params)
        query.is_valid(raise_exception=True)
        name = query.validated_data["period"]
        caller = cast(Caller, request.auth)
        period, now = PERIODS[name], timezone.now()
        points = series(now, period.step, period.points, caller.prefix)
        total = UsageSum()
        for point in points:
            total.add(point.sums)
        return Response(
            {
                "key": caller.prefix,
                "period": name,
                "step": period.step,
                "start": points[0].start,
                "end": now,
                "total": _counts(UsagePoint(None, "", total)),
                "steps": [{"start": point.start, **_counts(point)} for point in points],
            }
        )


def _counts(point: UsagePoint) -> dict[str, Any]:
    return {
        **{name: point.sums.counts[name] for name in COUNTERS},
        "errors": dict(point.sums.errors),
        "ttft_p50_ms": point.ttft_p50_ms,
        "ttft_p95_ms": point.ttft_p95_ms,
    }
