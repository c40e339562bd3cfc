#!/bin/sh
# Has Cloud Scheduler run the job berth-purge every hour: scheduler.sh PROJECT REGION
# The service account berth-scheduler needs roles/run.invoker on that job.
set -eu
project=$1 region=$2
gcloud scheduler jobs create http berth-purge \
    --project="$project" \
    --location="$region" \
    --schedule="17 * * * *" \
    --http-method=POST \
    --uri="https://run.googleapis.com/v2/projects/$project/locations/$region/jobs/berth-purge:run" \
    --oauth-service-account-email="berth-scheduler@$project.iam.gserviceaccount.com"
