#!/bin/sh
# Has Cloud Scheduler run the job berth-purge every hour: scheduler.sh PROJECT REGION, as often as you like.
# The service account berth-scheduler needs roles/run.invoker on that job.
set -eu
project=$1 region=$2
if gcloud scheduler jobs describe berth-purge --project="$project" --location="$region" >/dev/null 2>&1
then verb=update
else verb=create
fi
gcloud scheduler jobs "$verb" http berth-purge \
    --project="$project" \
    --location="$region" \
    --schedule="17 * * * *" \
    --http-method=POST \
    --uri="https://run.googleapis.com/v2/projects/$project/locations/$region/jobs/berth-purge:run" \
    --oauth-service-account-email="berth-scheduler@$project.iam.gserviceaccount.com"
