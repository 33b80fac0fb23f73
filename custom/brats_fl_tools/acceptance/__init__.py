"""The acceptance report of a study: may this model be used, better than what, for whom not, and how sure is that.

statistics    intervals over patients, paired tests, how many cases would decide
case_figures  figures of test cases under a model
evidence      the runs of a study that may be put side by side; what was left out, and why
comparing     a model against a baseline, hospital by hospital and region by region
hospitals     who gains, who contributes, whose labels look spoilt
judging       the verdict, against thresholds that were written before the runs
accounts      what it cost, whose cases, who took part
page          one page of it all
model_card    what goes with the model into its bundle
"""
